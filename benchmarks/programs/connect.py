"""How long until a new child has answered its first call?

The first connection of a process also pays for what is built once (the preamble, imports); it is
a figure of its own. The end of the child is not part of the time. Starts of a child without a
call are compared with starts of the same interpreter that runs `pass`, in turn.
"""

import os
import statistics

import harness
import remote


def report(bench, connect, disconnect, first_name, name):
    times = []
    for _ in range(3 if bench.quick else 6):
        began = harness.clock()
        child = connect()
        times.append((harness.clock() - began) * 1e3)
        disconnect(child)
    if first_name:
        bench.emit(first_name, times[0])
    bench.emit(name, statistics.median(times[1:]), all=times)


def report_to_bare(bench, connect, disconnect):
    """
    Report how many times as long as a bare interpreter connect() takes: the ratio of the medians.
    """
    ours, bare = [], []
    for _ in range(4 if bench.quick else 12):
        began = harness.clock()
        child = connect()
        ours.append((harness.clock() - began) * 1e3)
        disconnect(child)
        began = harness.clock()
        harness.bare_interpreter()
        bare.append((harness.clock() - began) * 1e3)
    ours, bare = ours[1:], bare[1:]
    bench.emit('connect_to_bare', statistics.median(ours) / statistics.median(bare), ours=ours, bare=bare)


def with_mitogen(bench):
    with harness.mitogen_router() as router:
        def connect_and(func):
            def connect():
                context = router.local()
                context.call(func)
                return context
            return connect

        def disconnect(context):
            context.shutdown(wait=True)

        with bench.figure('connect_first', 'connect'):
            report(bench, connect_and(os.getpid), disconnect, 'connect_first', 'connect')
        with bench.figure('connect_shipped'):
            report(bench, connect_and(remote.nothing), disconnect, None, 'connect_shipped')
        with bench.figure('connect_to_bare'):
            report_to_bare(bench, router.local, disconnect)


def with_execnet(bench):
    import gateway_child
    gateways = gateway_child.group()

    def connect():
        gateway = gateways.makegateway('popen')
        gateway.remote_exec('import os; channel.send(os.getpid())').receive()
        return gateway

    def connect_shipped():
        child = gateway_child.GatewayChild(gateways)
        child.call('nothing')
        return child.gateway

    try:
        with bench.figure('connect_first', 'connect'):
            report(bench, connect, lambda gateway: gateway.exit(), 'connect_first', 'connect')
        with bench.figure('connect_shipped'):
            report(bench, connect_shipped, lambda gateway: gateway.exit(), None, 'connect_shipped')
        with bench.figure('connect_to_bare'):
            report_to_bare(bench, lambda: gateways.makegateway('popen'), lambda gateway: gateway.exit())
    finally:
        gateway_child.end(gateways)


def with_multiprocessing(bench):
    import pipe_child

    def connect():
        child = pipe_child.PipeChild()
        child.call(os.getpid)
        return child

    report(bench, connect, lambda child: child.close(), 'connect_first', 'connect')
    with bench.figure('connect_to_bare'):
        # Its start says nothing of when the child is ready; an answer does.
        report_to_bare(bench, connect, lambda child: child.close())
    with bench.figure('connect_shipped'):
        raise harness.Skip('the child imports from the same disk')


if __name__ == '__main__':
    harness.main(globals())
