"""How many calls per second does one child answer when the caller does not wait between them?"""

import harness
import remote

# Kept below what a Unix socket takes before it blocks, or a plain pipe would deadlock with its own
# answers.
OUTSTANDING = 200


def with_mitogen(bench):
    with harness.mitogen_router() as router:
        context = router.local()

        def batch():
            receivers = [context.call_async(remote.nothing) for _ in range(OUTSTANDING)]
            for receiver in receivers:
                receiver.get().unpickle()

        harness.report_rate(bench, 'pipelined_200', batch, OUTSTANDING)


def with_execnet(bench):
    import gateway_child
    gateways = gateway_child.group()
    child = gateway_child.GatewayChild(gateways)

    def batch():
        for _ in range(OUTSTANDING):
            child.post('nothing')
        for _ in range(OUTSTANDING):
            child.channel.receive()

    try:
        harness.report_rate(bench, 'pipelined_200', batch, OUTSTANDING)
    finally:
        gateway_child.end(gateways)


def with_multiprocessing(bench):
    import pipe_child
    child = pipe_child.PipeChild()

    def batch():
        for _ in range(OUTSTANDING):
            child.post(remote.nothing)
        for _ in range(OUTSTANDING):
            child.conn.recv()

    harness.report_rate(bench, 'pipelined_200', batch, OUTSTANDING)
    child.close()


if __name__ == '__main__':
    harness.main(globals())
