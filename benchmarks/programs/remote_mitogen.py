"""Functions that run in a Mitogen context and use its interface there."""

import mitogen.core

import remote

_inbox = []


def send_many(sender, count, size):
    """Send `count` messages of `size` random bytes through sender."""
    block = remote.random_block(size)
    for _ in range(count):
        sender.send(block)


@mitogen.core.takes_router
def open_inbox(router):
    """Make a receiver here and return a sender to it."""
    _inbox[:] = [mitogen.core.Receiver(router)]
    return _inbox[0].to_sender()


def read_inbox(count):
    """Read `count` messages from the receiver that open_inbox() made, as values."""
    for _ in range(count):
        _inbox[0].get().unpickle()
