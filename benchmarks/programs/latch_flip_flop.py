"""How long do two threads of one process take to hand a token to each other and back?

Mitogen's Latch; beside it, for orientation, the standard library's SimpleQueue.
"""

import threading

import harness


def report(bench, there, back):
    """there and back are queues with put() and get()."""
    def other():
        while there.get() is not None:
            back.put(1)

    thread = threading.Thread(target=other)
    thread.start()

    def flip_flop():
        there.put(1)
        back.get()

    try:
        harness.report_time(bench, 'latch_flip_flop', flip_flop)
    finally:
        there.put(None)
        thread.join()


def with_mitogen(bench):
    # mitogen.parent installs the poller that a latch of a real master sleeps with.
    import mitogen.core
    import mitogen.parent  # noqa: F401
    with bench.figure('latch_flip_flop'):
        report(bench, mitogen.core.Latch(), mitogen.core.Latch())


def with_multiprocessing(bench):
    import queue
    with bench.figure('latch_flip_flop'):
        report(bench, queue.SimpleQueue(), queue.SimpleQueue())


if __name__ == '__main__':
    harness.main(globals())
