"""How long do calls, messages and latches take while 8 other children keep the processors busy?

With --spin 0 the same where nobody polls before sleeping, which must not be
the faster way. Means, not medians: a neighbour takes one whole time slice now
and then.
"""

import threading

import harness
import remote
from pipelined_calls import OUTSTANDING

BUSY = 8


def with_mitogen(bench):
    import mitogen.core
    import remote_mitogen
    suffix = '_no_spin' if bench.spin == '0' else ''
    # Some dozens of time slices, so that no single one decides.
    seconds = bench.seconds * 3

    def report(figure, func, value_of):
        with bench.figure(figure + suffix):
            _, mean, calls = harness.seconds_per_call(func, seconds, warm=False)
            bench.emit(figure + suffix, value_of(mean), calls=calls)

    def microseconds(mean):
        return mean * 1e6

    with harness.mitogen_router() as router:
        context = router.local()
        receiver = mitogen.core.Receiver(router)
        sender = receiver.to_sender()
        context.call(remote.nothing)
        for _ in range(BUSY):
            router.local().call_async(remote.never_end)

        def calls_under_way():
            for answer in [context.call_async(remote.nothing) for _ in range(OUTSTANDING)]:
                answer.get().unpickle()

        def messages():
            done = context.call_async(remote_mitogen.send_many, sender, OUTSTANDING, 64)
            for _ in range(OUTSTANDING):
                receiver.get().unpickle()
            done.get().unpickle()

        report('busy_call', lambda: context.call(remote.nothing), microseconds)
        report('busy_pipelined', calls_under_way, lambda mean: OUTSTANDING / mean)
        report('busy_one_way', messages, lambda mean: OUTSTANDING / mean)

        there, back = mitogen.core.Latch(), mitogen.core.Latch()

        def other():
            while there.get() is not None:
                back.put(1)

        def flip_flop():
            there.put(1)
            back.get()

        thread = threading.Thread(target=other)
        thread.start()
        try:
            report('busy_latch', flip_flop, microseconds)
        finally:
            there.put(None)
            thread.join()


if __name__ == '__main__':
    harness.main(globals())
