"""
A child that lies. It starts like any other, and then sends what its driver asks for: frames that it
packs by itself. It imports nothing of mitogen, so no check of ours stands in its way.

    python hostile_child.py SOCKET ...

is run in place of a Python interpreter; the rest of the command line is ignored. SOCKET is the path
of a UNIX socket at which the driver, ``Liar`` in liar.py, listens. Each line from there is a JSON
list: the name of a function below, and its keyword arguments. Each is answered by one line.
"""

import ast
import json
import os
import select
import socket
import struct
import sys
import time

HEADER = struct.Struct('>hLLLLLL')
MAGIC = 0x4d49

#: Nobody receives there, so that there is always an answer; and where that goes to.
NOBODY, HERE = 31337, 9

#: Handles that calls come to: CALL_FUNCTION and CALL_AT_ONCE.
CALLS = 101, 130


class Stream(object):
    """
    The connection to the parent: fd 0 in, fd 1 out.
    """
    def __init__(self):
        self.frames = []
        self.rest = b''
        self.ended = False
        self.received = 0
        #: A text that must never arrive, and whether it has.
        self.secret, self.leaked = None, False

    def read(self):
        data = b''
        try:
            data = os.read(0, 1 << 20)
        except BlockingIOError:
            return
        except OSError:
            pass
        if not data:
            self.ended = True
            return
        self.received += len(data)
        if self.secret and self.secret in data:
            self.leaked = True
        self.rest += data
        at = 0
        while len(self.rest) - at >= HEADER.size:
            fields = HEADER.unpack_from(self.rest, at)
            end = at + HEADER.size + fields[6]
            if len(self.rest) < end:
                break
            self.frames.append(fields[:6] + (self.rest[at + HEADER.size:end],))
            at = end
        self.rest = self.rest[at:]

    def write(self, data, reading=True, seconds=30):
        """
        Write, and read meanwhile lest both sides wait for each other. Return how much was taken,
        which is all unless the other side ends the stream, or does not read for so long.
        """
        view = memoryview(data)
        done = 0
        while done < len(view) and not self.ended:
            readable, writable, _ = select.select([0] if reading else [], [1], [], seconds)
            if readable:
                self.read()
            if writable:
                try:
                    done += os.write(1, view[done:done + 65536])
                except BlockingIOError:
                    pass
                except OSError:
                    self.ended = True
            if not readable and not writable:
                break
        return done

    def wait(self, wanted):
        """
        Read until a frame is wanted; return it, or None at the end.
        """
        at = 0
        while True:
            while at < len(self.frames):
                if wanted(self.frames[at]):
                    return self.frames.pop(at)
                at += 1
            if self.ended:
                return None
            select.select([0], [], [])
            self.read()


stream = Stream()
config = {}


def pack(dst=0, src=None, auth=None, handle=0, reply_to=0, data='', magic=MAGIC, length=None, repeat=1):
    """
    Return one frame. `data` is Latin-1 text, and may be taken many times.
    """
    data = data.encode('latin-1') * repeat
    src = config['context_id'] if src is None else src
    auth = src if auth is None else auth
    return HEADER.pack(magic, dst, src, auth, handle, reply_to, len(data) if length is None else length) + data


# ---- what the driver may ask for

def who():
    return config


def send(frames):
    """
    Send frames, each given as the keyword arguments of pack().
    """
    return stream.write(b''.join(pack(**frame) for frame in frames))


def flood(frame, count, start=0, reading=True, seconds=30, dst_step=0):
    """
    Send a frame many times; ``%d`` in its data becomes a number, and its destination grows by a
    step.
    """
    done = 0
    batch = []
    for i in range(start, start + count):
        data = frame.get('data', '')
        batch.append(pack(**dict(frame, data=data.replace('%d', str(i)), dst=frame.get('dst', 0) + dst_step * i)))
        if len(batch) == 200 or i == start + count - 1:
            block = b''.join(batch)
            taken = stream.write(block, reading, seconds)
            done += taken
            if taken < len(block):
                break
            batch = []
        del stream.frames[:-1000]
    return done


def raw(data, repeat=1):
    """
    Send bytes that need not be frames.
    """
    return stream.write(data.encode('latin-1') * repeat)


def nap(size, seconds):
    """
    Read a little, and sleep.
    """
    select.select([0], [], [], seconds)
    try:
        stream.rest += os.read(0, size)
    except BlockingIOError:
        pass
    except OSError:
        stream.ended = True
    time.sleep(seconds)


def sync():
    """
    Wait until the parent has looked at all that was sent. Return what it sent, but for the answer
    that tells.
    """
    stream.write(pack(dst=config['parent_ids'][0], handle=NOBODY, reply_to=HERE))
    answer = stream.wait(lambda frame: frame[4] == HERE and frame[5] == 999)
    got, stream.frames[:] = stream.frames[-1000:], []
    return {'alive': answer is not None, 'ended': stream.ended,
            'frames': [list(frame[:6]) + [len(frame[6]), frame[6][:300].decode('latin-1')] for frame in got]}


def ended():
    """
    Wait until the parent ends the stream.
    """
    stream.wait(lambda frame: False)
    return True


def ask(handle, dst=0, data=''):
    """
    Send a request, and return the payload of its answer; None for a dead one.
    """
    stream.write(pack(dst=dst, handle=handle, data=data, reply_to=HERE))
    frame = stream.wait(lambda frame: frame[4] == HERE)
    return frame[6].decode('latin-1') if frame[5] != 999 else None


def answer(data, repeat=1, magic=0x4d4a, reply_to=0):
    """
    Wait for a call, and answer it with any bytes.
    """
    call = stream.wait(lambda frame: frame[4] in CALLS)
    send([dict(dst=call[2], handle=call[5], reply_to=reply_to, data=data, repeat=repeat, magic=magic)])
    return call[5]


def call_handle():
    """
    Wait for a call, and return the handle that its answer is due at.
    """
    return stream.wait(lambda frame: frame[4] in CALLS)[5]


def unread(frames, times, seconds):
    """
    Send frames many times, and read nothing for so long; then read on, and send the rest.
    """
    data = b''.join(pack(**frame) for frame in frames) * times
    end = time.monotonic() + seconds
    done = stream.write(data, reading=False, seconds=seconds)
    time.sleep(max(0, end - time.monotonic()))
    stream.write(data[done:])


def answer_calls(answers):
    """
    Answer the calls that have come so far, each with one of some payloads.
    """
    if select.select([0], [], [], 0.1)[0]:
        stream.read()
    calls = [frame for frame in stream.frames if frame[4] in CALLS]
    del stream.frames[:]
    for call, data in zip(calls, answers * len(calls)):
        send([dict(dst=call[2], handle=call[5], data=data, magic=0x4d4a)])


def leave_copy():
    """
    End this process, but for a copy of it that goes on. Return the number of that.
    """
    if os.fork():
        os._exit(0)
    return os.getpid()


def settle():
    """
    Wait until the parent has looked at all that was sent, whatever it left unanswered meanwhile.
    Return whether it still listens.
    """
    ping = pack(dst=config['parent_ids'][0], handle=NOBODY, reply_to=HERE)
    while not stream.ended:
        stream.write(ping)
        until = time.monotonic() + 2
        while time.monotonic() < until and not stream.ended:
            if select.select([0], [], [], 0.2)[0]:
                stream.read()
            if any(frame[4] == HERE and frame[5] == 999 for frame in stream.frames):
                del stream.frames[:]
                return True
            del stream.frames[:]
    return False


def batch(steps, secret):
    """
    Do several of these one after the other, whatever comes of it, and settle. Return whether the
    parent still listens, and whether the secret came.
    """
    stream.secret = secret.encode()
    for name, kwargs in steps:
        if not stream.ended:
            globals()[name](**kwargs)
    return settle(), stream.leaked


# ---- start

def read_exactly(size):
    data = b''
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            sys.exit(1)
        data += more
    return data


def main():
    # "This version is here": so the configuration comes as a literal.
    os.write(1, ('MITO000 1 30b07f0 %s\n' % (sys.argv[-1],)).encode())
    size = int(read_exactly(9)[1:], 16)
    config.update(ast.literal_eval(read_exactly(size).decode()))
    os.set_blocking(0, False)
    os.set_blocking(1, False)
    stream.write(('MITO002%s\n' % (config['marker'],)).encode())
    serve(sys.argv[1])


def serve(path):
    """
    Do what the driver asks for, until it hangs up.
    """
    driver = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    driver.connect(path)
    lines = driver.makefile('rw')
    for line in lines:
        name, kwargs = json.loads(line)
        lines.write(json.dumps(globals()[name](**kwargs)) + '\n')
        lines.flush()


if __name__ == '__main__':
    main()
