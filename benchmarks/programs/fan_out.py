"""How long do 20 contexts take to start one after another, and how many calls per second go round
them?

Two ways round: a call to each in turn, and a call to all before the first answer is read.
"""

import os

import harness
import remote


def report(bench, connect, call, post, collect):
    """connect() starts one child and has a first answer; the others take the list of children."""
    children = []
    with bench.figure('start_20'):
        began = harness.clock()
        for _ in range(bench.count):
            children.append(connect())
        bench.emit('start_20', (harness.clock() - began) * 1e3)

    def each_in_turn():
        for child in children:
            call(child)

    def all_at_once():
        for pending in [(child, post(child)) for child in children]:
            collect(*pending)

    with bench.figure('fan_out_20_in_turn'):
        harness.report_rate(bench, 'fan_out_20_in_turn', each_in_turn, len(children))
    with bench.figure('fan_out_20_at_once'):
        harness.report_rate(bench, 'fan_out_20_at_once', all_at_once, len(children))
    return children


def with_mitogen(bench):
    with harness.mitogen_router() as router:
        def connect():
            context = router.local()
            context.call(os.getpid)
            return context

        report(
            bench, connect,
            lambda context: context.call(remote.nothing),
            lambda context: context.call_async(remote.nothing),
            lambda context, receiver: receiver.get().unpickle(),
        )


def with_execnet(bench):
    import gateway_child
    gateways = gateway_child.group()

    def connect():
        child = gateway_child.GatewayChild(gateways)
        child.call('nothing')
        return child

    try:
        report(
            bench, connect,
            lambda child: child.call('nothing'),
            lambda child: child.post('nothing'),
            lambda child, _: child.channel.receive(),
        )
    finally:
        gateway_child.end(gateways)


def with_multiprocessing(bench):
    import pipe_child

    def connect():
        child = pipe_child.PipeChild()
        child.call(remote.nothing)
        return child

    children = report(
        bench, connect,
        lambda child: child.call(remote.nothing),
        lambda child: child.post(remote.nothing),
        lambda child, _: child.conn.recv(),
    )
    for child in children:
        child.close()


if __name__ == '__main__':
    harness.main(globals())
