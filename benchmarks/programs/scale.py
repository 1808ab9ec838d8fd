"""How much does a context cost if its master has very many?

--count is how many. Started one after another; memory is what the master's own grows by.
"""

import os

import harness
from idle_memory import private_megabytes


def descriptors():
    return len(os.listdir('/proc/self/fd'))


def with_mitogen(bench):
    names = ('scale_start', 'scale_call', 'scale_memory', 'scale_descriptors')
    with bench.figure(*names):
        with harness.mitogen_router() as router:
            first = router.local()
            first.call(os.getpid)
            memory, fds = private_megabytes(os.getpid()), descriptors()
            began = harness.clock()
            contexts = [router.local() for _ in range(bench.count)]
            for context in contexts:
                context.call(os.getpid)
            bench.emit('scale_start', (harness.clock() - began) * 1e3 / bench.count)
            bench.emit('scale_memory', (private_megabytes(os.getpid()) - memory) * 1e3 / bench.count)
            bench.emit('scale_descriptors', (descriptors() - fds) / bench.count)
            last = contexts[-1]
            harness.report_time(bench, 'scale_call', lambda: last.call(os.getpid))
    with bench.figure('chain_10_start', 'chain_10_call'):
        with harness.mitogen_router() as router:
            began = harness.clock()
            far = harness.chain_of(router, 10)[-1]
            far.call(os.getpid)
            bench.emit('chain_10_start', (harness.clock() - began) * 1e3)
            harness.report_time(bench, 'chain_10_call', lambda: far.call(os.getpid))


if __name__ == '__main__':
    harness.main(globals())
