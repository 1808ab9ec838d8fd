"""How many messages per second flow one way, without answers, small ones and large ones, up and
down?

A pass ends when the reader has taken the last message as a value.
"""

import os

import harness

# Name, size in bytes, messages of the first pass, most messages of a pass.
SIZES = (
    ('64_b', 64, 1000, 50000),
    ('128_kib', 128 * harness.KIB, 30, 1000),
)


def report(bench, up, down):
    """
    Report both directions; up(size) and down(size) return a function that moves n messages and
    times it.
    """
    for name, size, first, most in SIZES:
        with bench.figure('one_way_up_' + name):
            harness.report_flow(bench, 'one_way_up_' + name, up(size), first, most)
        with bench.figure('one_way_down_' + name):
            harness.report_flow(bench, 'one_way_down_' + name, down(size), first, most)


def with_mitogen(bench):
    import mitogen.core
    import remote_mitogen
    with harness.mitogen_router() as router:
        context = router.local()

        def up(size):
            receiver = mitogen.core.Receiver(router)
            sender = receiver.to_sender()

            def pump(count):
                began = harness.clock()
                done = context.call_async(remote_mitogen.send_many, sender, count, size)
                for _ in range(count):
                    receiver.get().unpickle()
                took = harness.clock() - began
                done.get().unpickle()
                return took
            return pump

        def down(size):
            block = os.urandom(size)
            sender = context.call(remote_mitogen.open_inbox)

            def pump(count):
                began = harness.clock()
                done = context.call_async(remote_mitogen.read_inbox, count)
                for _ in range(count):
                    sender.send(block)
                done.get().unpickle()
                return harness.clock() - began
            return pump

        report(bench, up, down)


def with_execnet(bench):
    import gateway_child
    gateways = gateway_child.group()

    def up(size):
        channel = gateway_child.GatewayChild(gateways, loop=gateway_child.FLOW).channel
        channel.send(size)

        def pump(count):
            began = harness.clock()
            channel.send(('out', count))
            for _ in range(count):
                channel.receive()
            return harness.clock() - began
        return pump

    def down(size):
        channel = gateway_child.GatewayChild(gateways, loop=gateway_child.FLOW).channel
        channel.send(size)
        block = os.urandom(size)

        def pump(count):
            began = harness.clock()
            channel.send(('in', count))
            for _ in range(count):
                channel.send(block)
            channel.receive()
            return harness.clock() - began
        return pump

    try:
        report(bench, up, down)
    finally:
        gateway_child.end(gateways)


def with_multiprocessing(bench):
    import pipe_child
    children = []

    def child_for(size):
        block = os.urandom(size)
        children.append(pipe_child.FlowChild(block))
        return block, children[-1].conn

    def up(size):
        _, conn = child_for(size)

        def pump(count):
            began = harness.clock()
            conn.send(('out', count))
            for _ in range(count):
                conn.recv()
            return harness.clock() - began
        return pump

    def down(size):
        block, conn = child_for(size)

        def pump(count):
            began = harness.clock()
            conn.send(('in', count))
            for _ in range(count):
                conn.send(block)
            conn.recv()
            return harness.clock() - began
        return pump

    report(bench, up, down)
    for child in children:
        child.close()


if __name__ == '__main__':
    harness.main(globals())
