"""How much memory that is its own does a child hold which has answered one call and then waits?

Counted from Private_Clean and Private_Dirty of /proc/<pid>/smaps_rollup, in units of 10**6 bytes.
"""

import os
import time

import harness


def private_megabytes(pid):
    path = '/proc/%d/smaps_rollup' % (pid,)
    if not os.path.exists(path):
        raise harness.Skip('no smaps_rollup on this system')
    kibibytes = 0
    with open(path) as rollup:
        for line in rollup:
            if line.startswith(('Private_Clean:', 'Private_Dirty:')):
                kibibytes += int(line.split()[1])
    return kibibytes * 1024 / 1e6


def report(bench, pid):
    time.sleep(0.2)  # long enough for what a child still does after its answer
    bench.emit('idle_memory', private_megabytes(pid))


def with_mitogen(bench):
    with bench.figure('idle_memory'):
        with harness.mitogen_router() as router:
            context = router.local()
            report(bench, context.call(os.getpid))


def with_execnet(bench):
    import gateway_child
    gateways = gateway_child.group()
    try:
        with bench.figure('idle_memory'):
            gateway = gateways.makegateway('popen')
            report(bench, gateway.remote_exec('import os; channel.send(os.getpid())').receive())
    finally:
        gateway_child.end(gateways)


def with_multiprocessing(bench):
    import pipe_child
    with bench.figure('idle_memory'):
        child = pipe_child.PipeChild()
        report(bench, child.call(os.getpid))
        child.close()


if __name__ == '__main__':
    harness.main(globals())
