"""
The high-water mark of a stream, which the compiled core alone has.
"""

import threading

from mitogen.core import Message
from testlib import Peer, wait_for

SIZE = 16384
COUNT = 100
MARK = 65536


def test_a_sender_waits_while_too_much_waits_to_be_written(router):
    assert router.high_water == type(router).high_water == 8 * 1048576
    router.high_water = MARK
    waiting = []

    def send():
        for i in range(COUNT):
            router.route(Message(dst_id=5, handle=i + 1, data=b'x' * SIZE, enc=Message.ENC_BIN))
            waiting.append(pending())

    with Peer(router, 5) as peer:
        pending = peer.stream.protocol.pending_bytes
        thread = threading.Thread(target=send)
        thread.start()
        # Nobody reads, so the kernel is full some time, and then the queue.
        wait_for(lambda: pending() >= MARK)
        assert [peer.receive()[4] for _ in range(COUNT)] == list(range(1, COUNT + 1))
        thread.join(60)
        assert not thread.is_alive()
    # One message may cross the mark.
    assert max(waiting) <= MARK + SIZE + Message.HEADER_LEN
