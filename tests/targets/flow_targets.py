"""Functions that children of test_flow_control run."""

import mitogen.core

inbox = []


@mitogen.core.takes_router
def open_inbox(router):
    """Make a receiver here and return a sender to it."""
    inbox[:] = [mitogen.core.Receiver(router)]
    return inbox[0].to_sender()


def drain_inbox(count):
    """Return the size of `count` messages together."""
    return sum(len(inbox[0].get().unpickle()) for _ in range(count))


def flood(sender, count, size):
    block = b'z' * size
    for _ in range(count):
        sender.send(block)


def echo(value):
    return value


def ask_until_refused(sender):
    """Send messages that want answers, and return the text of the first that is refused."""
    while True:
        answer = sender.context.send_async(mitogen.core.Message(handle=sender.dst_handle, data=b'x' * 50))
        try:
            answer.get(timeout=0.2)
        except mitogen.core.TimeoutError:
            pass
        except mitogen.core.ChannelError as error:
            return error.args[0]


def drain_slowly(count, seconds):
    """As drain_inbox, with a rest after each message."""
    import time
    size = 0
    for _ in range(count):
        size += len(inbox[0].get().unpickle())
        time.sleep(seconds)
    return size
