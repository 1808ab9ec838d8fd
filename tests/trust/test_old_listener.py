"""
A client of ours at a listener of version 0.3. The listener here is a few lines that speak as such a
one does, and look at each message by its rule about authority: the message must come by the stream
that leads to its ``auth_id``.
"""

import pickle
import socket
import struct
import subprocess
import sys

import pytest

from mitogen.core import Context, Message, Sender

HEADER = struct.Struct('>hLLLLLL')
LISTENER, CLIENT, THIRD, FOURTH = 0, 77, 3, 9
HANDLE, BACK = 500, 600

#: Takes Senders at a handle, sends something by each, and sends each on to the listener.
PROGRAM = '''
import sys
import mitogen.core, mitogen.unix
router, listener = mitogen.unix.connect(sys.argv[1])
receiver = mitogen.core.Receiver(router, handle=%d)
listener.send(mitogen.core.Message.pickled(u'ready', handle=1))
while True:
    sender = receiver.get().unpickle()
    sender.send(u'data')
    listener.send(mitogen.core.Message.pickled(sender, handle=2))
''' % (HANDLE,)


class OldListener(object):
    def __init__(self, path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(60)
            self.proc = subprocess.Popen([sys.executable, '-c', PROGRAM, path])
            self._sock, _ = listener.accept()
        self._sock.settimeout(60)
        self._fp = self._sock.makefile('rb')
        assert struct.unpack('>L', self._fp.read(4)) == (self.proc.pid,)
        self._sock.sendall(struct.pack('>LLL', CLIENT, LISTENER, 1))

    def send(self, value, author):
        """
        Pass a message of an author on to the client.
        """
        data = Message.pickled(value).data
        self._sock.sendall(HEADER.pack(0x4d49, CLIENT, author, author, HANDLE, 0, len(data)) + data)

    def take(self):
        """
        Return the next message: its destination, whether the listener would pass it on, and its
        payload.
        """
        _, dst_id, src_id, auth_id, handle, _, length = HEADER.unpack(self._fp.read(HEADER.size))
        data = self._fp.read(length)
        routes = {CLIENT: 'the stream to the client', THIRD: 'the third'}
        assert src_id == CLIENT
        return dst_id, handle, routes.get(auth_id) == routes[CLIENT], data

    def close(self):
        self._fp.close()
        self._sock.close()
        self.proc.kill()
        self.proc.wait()


@pytest.fixture
def listener(tmp_path):
    listener = OldListener(str(tmp_path / 'sock'))
    yield listener
    listener.close()


class Arguments(pickle.Unpickler):
    def find_class(self, module, name):
        return lambda *args: (name, args)


def arguments(data):
    """
    Return the function that a pickle names, and its arguments.
    """
    import io
    return Arguments(io.BytesIO(data)).load()


def test_a_sender_that_a_third_context_made_up_is_dropped_there_and_its_own_one_is_not(listener):
    assert listener.take()[1:3] == (1, True)
    listener.send(Sender(Context(None, FOURTH), BACK), THIRD)
    dst_id, handle, passes, data = listener.take()
    assert (dst_id, handle, passes) == (FOURTH, BACK, False)
    # The one of that version takes a context and a handle. A third argument is an error there.
    dst_id, handle, passes, data = listener.take()
    assert (handle, passes) == (2, True)
    assert arguments(data) == ('_unpickle_sender', (FOURTH, BACK, THIRD))

    listener.send(Sender(Context(None, THIRD), BACK), THIRD)
    assert listener.take()[:3] == (THIRD, BACK, True)
    assert arguments(listener.take()[3]) == ('_unpickle_sender', (THIRD, BACK))

    # One that the listener gives is used with the authority of its client.
    listener.send(Sender(Context(None, FOURTH), BACK), LISTENER)
    assert listener.take()[:3] == (FOURTH, BACK, True)
