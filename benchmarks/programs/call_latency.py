"""
How long does a call take there and back, how much of it does each hop add, and what does it cost
the processors?
"""

import harness
import remote

HOPS = (1, 2, 3)


def report(bench, hops, call, cpu_of_others):
    """Report call() to a child `hops` away; returns its time in microseconds."""
    median, cpu = harness.cpu_per_call(call, bench.seconds, cpu_of_others)
    bench.emit('call_%d_hop' % hops, median * 1e6)
    if hops == 1:
        bench.emit('call_cpu', cpu * 1e6)
    if hops == HOPS[-1]:
        bench.emit('call_cpu_%d_hop' % hops, cpu * 1e6)
    return median * 1e6


def measure_each(bench, measure):
    """
    Run measure(hops), which returns microseconds, for every distance, and report what a hop adds.
    """
    times = {}
    for hops in HOPS:
        with bench.figure('call_%d_hop' % hops):
            times[hops] = measure(hops)
    with bench.figure('call_each_hop_more'):
        bench.emit('call_each_hop_more', (times[HOPS[-1]] - times[1]) / (HOPS[-1] - 1))


def with_mitogen(bench):
    contexts = []

    def cpu_of_others():
        return sum(context.call(remote.cpu_seconds) for context in contexts)

    with harness.mitogen_router() as router:
        def measure(hops):
            contexts.append(router.local(via=contexts[-1]) if contexts else router.local())
            call = contexts[-1].call
            return report(bench, hops, lambda: call(remote.nothing), cpu_of_others)

        measure_each(bench, measure)


def with_execnet(bench):
    import gateway_child
    gateways = gateway_child.group()
    children = []

    def cpu_of_others():
        return sum(child.call('cpu_seconds') for child in children)

    def measure(hops):
        spec = 'popen//id=hop%d' % hops
        if children:
            spec += '//via=hop%d' % (hops - 1)
        children.append(gateway_child.GatewayChild(gateways, spec))
        call = children[-1].call
        return report(bench, hops, lambda: call('nothing'), cpu_of_others)

    try:
        measure_each(bench, measure)
    finally:
        gateway_child.end(gateways)


def with_multiprocessing(bench):
    import pipe_child
    child = pipe_child.PipeChild()
    report(bench, 1, lambda: child.call(remote.nothing), lambda: child.call(remote.cpu_seconds))
    with bench.figure('call_2_hop', 'call_3_hop', 'call_cpu_3_hop', 'call_each_hop_more'):
        raise harness.Skip('a pipe is not forwarded')
    child.close()


if __name__ == '__main__':
    harness.main(globals())
