"""How long do 100 contexts take, started together from as many threads, until each has answered a
call?

As many bare interpreters are started the same way before and after, each until it has ended; the
ratio to their mean is a figure of its own.
"""

import os
import threading

import harness


def seconds_together(count, func):
    """How long it takes until func() has returned in each of `count` threads."""
    failures = []

    def start():
        try:
            func()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(count)]
    began = harness.clock()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = harness.clock() - began
    if failures:
        raise failures[0]
    return took


def report(bench, connect):
    before = seconds_together(bench.count, harness.bare_interpreter)
    took = seconds_together(bench.count, connect)
    bench.emit('start_100_together', took * 1e3)
    # The contexts wait for calls now, and use no processor.
    after = seconds_together(bench.count, harness.bare_interpreter)
    bench.emit('start_100_to_bare', took / (before + after) * 2, bare=[before * 1e3, after * 1e3])


def with_mitogen(bench):
    with harness.mitogen_router() as router:
        with bench.figure('start_100_together', 'start_100_to_bare'):
            report(bench, lambda: router.local(connect_timeout=60).call(os.getpid))


def with_execnet(bench):
    import gateway_child
    gateways = gateway_child.group()
    try:
        with bench.figure('start_100_together', 'start_100_to_bare'):
            report(bench, lambda: gateways.makegateway('popen').remote_exec('channel.send(1)').receive())
    finally:
        gateway_child.end(gateways)


def with_multiprocessing(bench):
    import pipe_child
    children = []

    def connect():
        children.append(pipe_child.PipeChild())
        children[-1].call(os.getpid)

    with bench.figure('start_100_together', 'start_100_to_bare'):
        report(bench, connect)
    for child in children:
        child.close()


if __name__ == '__main__':
    harness.main(globals())
