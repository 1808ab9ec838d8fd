"""How long until a forked child has answered its first call?"""

import os
import statistics

import harness


def report(bench, connect, disconnect):
    times = []
    for _ in range(5 if bench.quick else 15):
        began = harness.clock()
        child = connect()
        times.append((harness.clock() - began) * 1e3)
        disconnect(child)
    bench.emit('fork_first_call', statistics.median(times), all=times)


def with_mitogen(bench):
    with bench.figure('fork_first_call'):
        try:
            import mitogen.fork  # noqa: F401
        except ImportError as error:
            raise harness.Skip('no mitogen.fork here: %s' % (error,))
        with harness.mitogen_router() as router:
            def connect():
                context = router.fork()
                context.call(os.getpid)
                return context

            report(bench, connect, lambda context: context.shutdown(wait=True))


def with_multiprocessing(bench):
    import pipe_child

    def connect():
        child = pipe_child.PipeChild('fork')
        child.call(os.getpid)
        return child

    with bench.figure('fork_first_call'):
        report(bench, connect, lambda child: child.close())


if __name__ == '__main__':
    harness.main(globals())
