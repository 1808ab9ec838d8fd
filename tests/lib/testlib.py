"""
Helpers of several test files. Nothing here is sent to a child; functions that children run are in
``targets``.
"""

import contextlib
import logging
import os
import signal
import socket
import struct
import threading
import time

import mitogen.core
import mitogen.parent

HEADER = '>hLLLLLL'


def write_files(folder, files):
    """
    Write files below a folder.

    :param folder: a :class:`pathlib.Path`.
    :param files: relative path -> text.
    """
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def wait_for(predicate, seconds=None, what=None):
    """
    Return the first truthy value of predicate(); AssertionError when there is none in time: by
    default patience().
    """
    seconds = patience() if seconds is None else seconds
    began = time.time()
    while True:
        value = predicate()
        if value:
            return value
        waited = time.time() - began
        if waited > seconds:
            raise AssertionError('not within %g s: %s' % (seconds, what or predicate))
        # A wait that is long already may be a little longer: others need the processor.
        time.sleep(min(0.1, max(0.005, waited / 20)))


def patience():
    """
    Return how many seconds a test may wait for what is sure to come: half of what it may take as a
    whole, which is more where all is slow, as under a sanitizer.
    """
    return float(os.environ.get('MITOGEN_TEST_SECONDS', '300')) / 2


def is_running(pid):
    """
    Return whether a process exists and is no zombie.
    """
    try:
        with open('/proc/%d/stat' % pid) as fp:
            text = fp.read()
    except IOError:
        return False
    return text[text.rindex(')') + 2] not in 'ZX'


def send_signal(pid, number):
    """
    Send a signal to a process that may end by itself at any moment.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_for_end(pid):
    """
    Wait until a process has ended. A child of this process that nobody has waited for is no zombie
    then.
    """
    def ended():
        try:
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            return not is_running(pid)
    wait_for(ended, what='the end of process %d' % (pid,))


def stop_process(pid):
    """
    Stop a process, and return once none of its threads runs: on another CPU they go on for a moment
    after the signal.
    """
    os.kill(pid, signal.SIGSTOP)

    def stopped():
        try:
            for tid in os.listdir('/proc/%d/task' % pid):
                with open('/proc/%d/task/%s/stat' % (pid, tid)) as fp:
                    if fp.read().rpartition(')')[2].split()[0] not in 'TXZ':
                        return False
        except IOError:
            # It, or one thread of it, has just ended.
            return not is_running(pid)
        return True

    wait_for(stopped, patience(), 'a stopped process')


def frame(dst=0, src=0, auth=None, handle=0, reply_to=0, data=b'', magic=0x4d49, length=None):
    """
    Return the bytes of one frame, built from the field table and by no code of the package.
    """
    return struct.pack(
        HEADER, magic, dst, src, src if auth is None else auth, handle, reply_to,
        len(data) if length is None else length,
    ) + data


def unframe(data):
    """
    Return (list of (magic, dst, src, auth, handle, reply_to, payload), rest).
    """
    size = struct.calcsize(HEADER)
    found = []
    while len(data) >= size:
        fields = struct.unpack(HEADER, data[:size])
        if len(data) < size + fields[6]:
            break
        found.append(fields[:6] + (data[size:size + fields[6]],))
        data = data[size + fields[6]:]
    return found, data


class Peer(object):
    """
    A scripted neighbour: a context on the other end of a socket, whose every byte the test writes
    itself.

    `router` gets a stream to the context `context_id`. With `child` it is one that the router takes
    for its child: it may announce routes, and is told to shut down. `build` makes a stream of
    another protocol.
    """

    def __init__(self, router, context_id, child=False, name=None, build=None):
        protocol_class = mitogen.parent.MitogenProtocol if child else mitogen.core.MitogenProtocol
        self.router = router
        self.context_id = context_id
        self.sock, ours = socket.socketpair()
        self.sock.settimeout(patience())
        self._rest = b''
        self._frames = []
        self.stream = (build or protocol_class.build_stream)(router, remote_id=context_id)
        self.stream.name = name or u'peer.%d' % (context_id,)
        ours.setblocking(False)
        rfp = os.fdopen(os.dup(ours.fileno()), 'rb', 0)
        wfp = os.fdopen(os.dup(ours.fileno()), 'wb', 0)
        ours.close()
        self.stream.accept(rfp, wfp)
        self.context = router.context_class(router, context_id, name=self.stream.name)
        router.register(self.context, self.stream)
        if child:
            router.broker.defer_sync(lambda: router.route_monitor.notice_stream(self.stream))
        sync(router.broker)

    def grant(self, start, end):
        """
        Have the router think that this child was handed the ids from `start` to before `end`.
        """
        request = mitogen.core.Message(src_id=self.context_id)
        self.router.broker.defer_sync(
            lambda: self.router.route_monitor.grant(self.stream, start, end, request))

    def send(self, *args, **kwargs):
        """
        Send one frame; the source is this peer unless told otherwise.
        """
        kwargs.setdefault('src', self.context_id)
        self.write(frame(*args, **kwargs))

    def write(self, data):
        self.sock.sendall(data)

    def receive(self):
        """
        Return the next frame as unframe() does, or None at the end of the stream. Fails after
        patience().
        """
        while not self._frames:
            data = self.sock.recv(65536)
            if not data:
                return None
            self._frames, self._rest = unframe(self._rest + data)
        return self._frames.pop(0)

    def is_closed(self, seconds=None):
        """
        Return whether the other side closes the stream within some time. Bytes that it still sends
        are dropped.
        """
        self.sock.settimeout(patience() if seconds is None else seconds)
        try:
            while self.sock.recv(65536):
                pass
        except socket.timeout:
            return False
        except OSError:
            pass
        return True

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def sync(broker):
    """
    Wait until the broker's thread has done everything asked of it before.
    """
    broker.defer_sync(lambda: None)


class LogCapture(logging.Handler):
    """
    Collects records of a logger and of all below it.
    """

    def __init__(self, name='', level=logging.DEBUG):
        logging.Handler.__init__(self, level)
        self.records = []
        self.logger = logging.getLogger(name)
        self.capture_level = level

    def emit(self, record):
        self.records.append(record)

    def __enter__(self):
        self.old_level = self.logger.level
        self.logger.addHandler(self)
        self.logger.setLevel(self.capture_level)
        return self

    def __exit__(self, *exc):
        self.logger.removeHandler(self)
        self.logger.setLevel(self.old_level)

    def find(self, text, level=None, name=None):
        """
        Return the records whose message has some text.
        """
        return [
            r for r in list(self.records)
            if text in r.getMessage() and (level is None or r.levelno == level) and (name is None or r.name == name)
        ]

    def wait(self, text, level=None, name=None, seconds=None):
        """
        Return the records whose message has some text, once there is one. The record that announces
        a call shows the arguments, hence the text that a child was only asked to log: such a record
        does not count.
        """
        return wait_for(lambda: [r for r in self.find(text, level, name) if ': call ' not in r.getMessage()], seconds,
                        'a log record with %r; there are %r' % (text, [r.getMessage() for r in self.records][-20:]))


def in_threads(functions, seconds=60.0):
    """
    Run functions at the same time, each in a thread; return their results, or the exceptions they
    raised, in order.
    """
    results = [None] * len(functions)

    def run(index, function):
        try:
            results[index] = function()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive(), 'a thread did not end'
    return results


@contextlib.contextmanager
def attribute(obj, name, value):
    """
    Set an attribute for the length of a block.
    """
    missing = object()
    old = obj.__dict__.get(name, missing)
    setattr(obj, name, value)
    try:
        yield
    finally:
        if old is missing:
            delattr(obj, name)
        else:
            setattr(obj, name, old)
