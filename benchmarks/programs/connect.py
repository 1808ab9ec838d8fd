"""How long until a new child has answered its first call?

The first connection of a process also pays for what is built once (the preamble, imports); it is a figure
of its own. The end of the child is not part of the time.
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
    finally:
        gateway_child.end(gateways)


def with_multiprocessing(bench):
    import pipe_child

    def connect():
        child = pipe_child.PipeChild()
        child.call(os.getpid)
        return child

    report(bench, connect, lambda child: child.close(), 'connect_first', 'connect')
    with bench.figure('connect_shipped'):
        raise harness.Skip('the child imports from the same disk')


if __name__ == '__main__':
    harness.main(globals())
