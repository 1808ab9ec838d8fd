"""How fast do random bytes travel as an argument and as a result?

--count is the size in MiB. The far side returns the length of an argument, and returns a block
made before. The first large one in each direction is not timed: it touches memory that the
machine may have to find first. Results come first, in a process which has sent nothing large
yet. Those of 1 MiB are measured again after the arguments: by then the C library has learnt to
keep large blocks, and a peer that copies much is the faster for it. The 1 MiB argument is sent
to a context three hops away as well.
"""

import os

import harness
import remote


def passes(bench, mebibytes):
    """How often to repeat: a single pass of a large block where time is short."""
    if mebibytes < 8:
        return {'at_least': 5}
    if bench.quick:
        return {'at_least': 1, 'warm': False}
    return {'at_least': 2, 'warm': False}


def report(bench, figure, func, mebibytes):
    """Report megabytes (10**6 bytes) per second of func(), which moves so many MiB."""
    harness.report_rate(bench, figure, func, mebibytes * harness.MIB / 1e6, **passes(bench, mebibytes))


def with_mitogen(bench):
    mebibytes = bench.count
    block = os.urandom(mebibytes * harness.MIB)
    with harness.mitogen_router() as router:
        context = router.local()
        context.call(remote.random_block, 1)
        with bench.figure('result_%d_mib' % mebibytes):
            # The first answer makes the block, and warms the way back up.
            context.call(remote.random_block, len(block))
            report(bench, 'result_%d_mib' % mebibytes, lambda: context.call(remote.random_block, len(block)), mebibytes)
        with bench.figure('argument_%d_mib' % mebibytes):
            context.call(remote.size_of, block)
            report(bench, 'argument_%d_mib' % mebibytes, lambda: context.call(remote.size_of, block), mebibytes)
        if mebibytes == 1:
            with bench.figure('result_1_mib_later'):
                report(bench, 'result_1_mib_later', lambda: context.call(remote.random_block, len(block)), mebibytes)
            with bench.figure('argument_1_mib_3_hop'):
                second = router.local(via=context)
                far = router.local(via=second)
                report(bench, 'argument_1_mib_3_hop', lambda: far.call(remote.size_of, block), mebibytes)


def with_execnet(bench):
    import gateway_child
    mebibytes = bench.count
    block = os.urandom(mebibytes * harness.MIB)
    gateways = gateway_child.group()
    try:
        child = gateway_child.GatewayChild(gateways, 'popen//id=hop1')
        with bench.figure('result_%d_mib' % mebibytes):
            child.call('random_block', len(block))
            report(bench, 'result_%d_mib' % mebibytes, lambda: child.call('random_block', len(block)), mebibytes)
        with bench.figure('argument_%d_mib' % mebibytes):
            child.call('size_of', block)
            report(bench, 'argument_%d_mib' % mebibytes, lambda: child.call('size_of', block), mebibytes)
        if mebibytes == 1:
            with bench.figure('result_1_mib_later'):
                report(bench, 'result_1_mib_later', lambda: child.call('random_block', len(block)), mebibytes)
            with bench.figure('argument_1_mib_3_hop'):
                gateway_child.GatewayChild(gateways, 'popen//id=hop2//via=hop1')
                far = gateway_child.GatewayChild(gateways, 'popen//id=hop3//via=hop2')
                report(bench, 'argument_1_mib_3_hop', lambda: far.call('size_of', block), mebibytes)
    finally:
        gateway_child.end(gateways)


def with_multiprocessing(bench):
    import pipe_child
    mebibytes = bench.count
    block = os.urandom(mebibytes * harness.MIB)
    child = pipe_child.PipeChild()
    child.call(remote.random_block, 1)
    child.call(remote.random_block, len(block))
    report(bench, 'result_%d_mib' % mebibytes, lambda: child.call(remote.random_block, len(block)), mebibytes)
    child.call(remote.size_of, block)
    report(bench, 'argument_%d_mib' % mebibytes, lambda: child.call(remote.size_of, block), mebibytes)
    if mebibytes == 1:
        report(bench, 'result_1_mib_later', lambda: child.call(remote.random_block, len(block)), mebibytes)
    child.close()
    if mebibytes == 1:
        with bench.figure('argument_1_mib_3_hop'):
            raise harness.Skip('a pipe is not forwarded')


if __name__ == '__main__':
    harness.main(globals())
