"""How long do 100 contexts take, started together from as many threads, until each has answered a call?"""

import os
import threading

import harness


def report(bench, connect):
    failures = []

    def start():
        try:
            connect()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(bench.count)]
    began = harness.clock()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = harness.clock() - began
    if failures:
        raise failures[0]
    bench.emit('start_100_together', took * 1e3)


def with_mitogen(bench):
    with harness.mitogen_router() as router:
        with bench.figure('start_100_together'):
            report(bench, lambda: router.local(connect_timeout=60).call(os.getpid))


def with_execnet(bench):
    import gateway_child
    gateways = gateway_child.group()
    try:
        with bench.figure('start_100_together'):
            report(bench, lambda: gateways.makegateway('popen').remote_exec('channel.send(1)').receive())
    finally:
        gateway_child.end(gateways)


def with_multiprocessing(bench):
    import pipe_child
    children = []

    def connect():
        children.append(pipe_child.PipeChild())
        children[-1].call(os.getpid)

    with bench.figure('start_100_together'):
        report(bench, connect)
    for child in children:
        child.close()


if __name__ == '__main__':
    harness.main(globals())
