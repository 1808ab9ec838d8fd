"""How long until a forked child has answered its first call? How much of that
is the fork?"""

import os
import statistics

import harness


def report(bench, figure, connect, disconnect):
    times = []
    for _ in range(5 if bench.quick else 15):
        began = harness.clock()
        child = connect()
        times.append((harness.clock() - began) * 1e3)
        disconnect(child)
    bench.emit(figure, statistics.median(times), all=times)


def report_bare(bench):
    """Time of os.fork() itself in this process, until a child that does
    nothing else has written a byte."""
    reader, writer = os.pipe()

    def connect():
        pid = os.fork()
        if not pid:
            os.write(writer, b'.')
            os._exit(0)
        os.read(reader, 1)
        return pid

    with bench.figure('fork_bare'):
        report(bench, 'fork_bare', connect, lambda pid: os.waitpid(pid, 0))
    os.close(reader)
    os.close(writer)


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

            report(bench, 'fork_first_call', connect, lambda context: context.shutdown(wait=True))
            report_bare(bench)


def with_multiprocessing(bench):
    import pipe_child

    def connect():
        child = pipe_child.PipeChild('fork')
        child.call(os.getpid)
        return child

    with bench.figure('fork_first_call'):
        report(bench, 'fork_first_call', connect, lambda child: child.close())
    report_bare(bench)


if __name__ == '__main__':
    harness.main(globals())
