# SPDX-License-Identifier: BSD-3-Clause
"""
The hub: starts zygotes (:mod:`mitogen.ansible.zygote`) and passes on their orders and their
answers.

A host's hub is in the context over there; that of the controller's own
machine is in the daemon. There is one zygote for each user and interpreter.
The large texts that a task needs are kept here, so a second user's zygote gets
them without another trip over the link.
"""

from __future__ import absolute_import

import errno
import fcntl
import marshal
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import mitogen.ansible.environment

HEADER = struct.Struct('>II')
MARSHAL = 2

#: A zygote prints this once it is ready to read its text.
READY = b'MITOGEN-ZYGOTE-READY'

#: The exit status of an interpreter that is too old to be a zygote.
TOO_OLD = 97

#: Seconds that one may take to be ready, password and all.
START = 60.0

#: Bytes that one may say before it is ready, and bytes of an answer: no message has more.
MOST_OUTPUT, MOST_ANSWER = 1 << 20, 128 << 20

#: Seconds that a zygote has to end by itself, once its input is at its end.
PATIENCE = 3.0

#: Files about users and their rights. A zygote that was started before one of them changed is not
#: given further work, as each task of Ansible's own becomes the user anew.
ABOUT_USERS = ('/etc/passwd', '/etc/group', '/etc/sudoers', '/etc/sudoers.d', '/etc/doas.conf', '/etc/environment',
               '/etc/security/limits.conf')

#: The first text of an interpreter. It must not be long, as everybody can see it. The word that it
#: prints is in two parts: the text itself may be printed, by a shell or an error.
TEXT = '''import os,sys
if sys.version_info<(3,6):os._exit(%d)
if os.isatty(0):
 import tty;tty.setraw(0)
os.write(1,b"%s"b"%s")
def r(n):
 b=b""
 while len(b)<n:
  c=os.read(0,n-len(b))
  if not c:os._exit(1)
  b+=c
 return b
exec(compile(r(int(r(8))),"<zygote>","exec"))
main()''' % (TOO_OLD, READY[:8].decode(), READY[8:].decode())

#: Given to an interpreter as `-c`, on one line: `sudo -i` loses the ends of lines.
BOOT = 'exec(%r)' % (TEXT,)


class Zygote(object):
    """
    A zygote that runs, or is about to.

    :ivar waiting: frames to be written when it is ready.
    :ivar jobs: number -> function that is called with a marshalled answer.
    :ivar payloads: digests of those that it has.
    :ivar texts: digests of the texts that it has.
    """

    def __init__(self, key, proc, infd, files):
        self.key, self.proc, self.infd, self.files = key, proc, infd, files
        self.ready, self.deadline = False, time.monotonic() + START
        self.output = bytearray()   # while it starts; then what it complains of
        self.buffer = bytearray()   # of frames
        self.waiting = bytearray()
        self.pending = bytearray()  # what its input did not take at once
        self.jobs = {}
        self.payloads, self.texts = set(), set()
        # Without a user in its key it is the login's own, which lasts as long as the login.
        self.stamp = stamp() if key.partition(' ')[0] else None
        self.retired = False


def stamp():
    """
    Return a value that changes with any of `ABOUT_USERS`.
    """
    found = []
    for path in ABOUT_USERS:
        try:
            status = os.stat(path)
            found.append((status.st_ino, status.st_mtime, status.st_size))
        except OSError:
            found.append(None)
    return found


def start_process(argv, terminal):
    """
    Return (process, descriptor of its input, [descriptors of its output]).

    :param bool terminal: let its input and stderr be its controlling terminal, for programs that
        ask there.
    """
    if not terminal:
        proc = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env=mitogen.ansible.environment.given())
        files = copies(proc.stdin.fileno(), proc.stdout.fileno(), proc.stderr.fileno())
        for stream in proc.stdin, proc.stdout, proc.stderr:
            stream.close()
        return proc, files[0], files[1:]
    master, slave = pty.openpty()
    try:
        proc = subprocess.Popen(
            argv, stdin=slave, stdout=subprocess.PIPE, stderr=slave, start_new_session=True,
            env=mitogen.ansible.environment.given(),
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        files = [master] + copies(master, proc.stdout.fileno())
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    proc.stdout.close()
    return proc, files[0], files[1:]


def copies(*fds):
    """
    Return copies of descriptors, or none if they cannot all be had.
    """
    made = []
    try:
        for fd in fds:
            made.append(os.dup(fd))
    except BaseException:
        for fd in made:
            os.close(fd)
        raise
    return made


class Hub(object):
    """
    :param bytes source: text of the zygote.
    """

    def __init__(self, source):
        self.source = source
        #: Guards all that follows.
        self.lock = threading.RLock()
        self.zygotes = {}   # key -> Zygote
        self.closed = False
        self.retired = []   # those that finish their jobs, and begin no others
        self.by_file = {}   # descriptor -> Zygote
        self.texts = {}     # digest -> text, deflated
        self.payloads = {}  # digest -> (name, members)
        self.poll = select.poll()
        self.wake_r, self.wake_w = os.pipe()
        for fd in self.wake_r, self.wake_w:
            fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            os.set_blocking(fd, False)
        self.poll.register(self.wake_r, select.POLLIN)
        self.thread = threading.Thread(target=self.run, name='mitogen-ansible-hub')
        self.thread.daemon = True
        self.thread.start()

    # For any thread that has work.

    def request(self, answer, key, start, number, frame, digests=()):
        """
        Have a zygote do something, and return at once.

        :param answer: called with marshalled answers, on any thread.
        :param key: which zygote: the user, a blank, and the interpreter. Without either it is any
            of the login's.
        :param start: (command line, bool terminal) to start it with, if there is none; an empty one
            is for this interpreter.
        :param int number: of the job.
        :param bytes frame: what the zygote is told, marshalled.
        :param digests: of the payloads that it needs.
        """
        with self.lock:
            try:
                zygote = self.find(key) or self.start(key, start)
            except (OSError, subprocess.SubprocessError) as error:
                return answer(marshal.dumps(('fail', 'start', str(error)), MARSHAL))
            zygote.jobs[number] = answer
            for digest in digests:
                if digest not in zygote.payloads:
                    self.give(zygote, digest)
            self.tell(zygote, number, frame)

    def add_payload(self, digest, name, members, texts):
        """
        Keep the texts of a module.
        """
        with self.lock:
            self.texts.update(texts)
            self.payloads[digest] = name, members

    def say(self, key, data):
        """
        Type something, a password, on the input of a zygote that is about to start.
        """
        with self.lock:
            zygote = self.zygotes.get(key)
            if zygote is not None and not zygote.ready:
                self.write(zygote, data)

    def cancel(self, key, number):
        """
        Nobody waits for this job any more.
        """
        with self.lock:
            zygotes = [self.zygotes[key]] if key in self.zygotes else []
            zygote = ([found for found in zygotes + self.retired if number in found.jobs] or [None])[0]
            if zygote is None:
                return
            del zygote.jobs[number]
            if zygote.ready:
                self.tell(zygote, 0, marshal.dumps(('cancel', number), MARSHAL))
            elif not zygote.jobs:
                self.lose(zygote)

    def close(self):
        """
        End all zygotes, and the thread.
        """
        with self.lock:
            for zygote in list(self.zygotes.values()) + self.retired:
                self.lose(zygote)
            self.closed = True
        self.wake()
        self.thread.join()
        for fd in self.wake_r, self.wake_w:
            os.close(fd)

    # Zygotes.

    def find(self, key):
        if key != ' ':
            zygote = self.zygotes.get(key)
            if zygote is None or zygote.stamp is None or not zygote.ready or zygote.stamp == stamp():
                return zygote
            return self.retire(zygote)
        for key, zygote in self.zygotes.items():
            if key.startswith(' '):
                return zygote
        return None

    def retire(self, zygote):
        """
        Let a zygote end once its jobs are done.
        """
        del self.zygotes[zygote.key]
        zygote.retired = True
        self.retired.append(zygote)
        if not zygote.jobs:
            self.lose(zygote)

    def start(self, key, start):
        argv, terminal = start
        proc, infd, files = start_process(list(argv) or [sys.executable, '-c', BOOT], terminal)
        zygote = Zygote(key, proc, infd, files)
        for fd in [infd] + files:
            fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        os.set_blocking(infd, False)
        self.zygotes[key] = zygote
        for fd in files:
            self.by_file[fd] = zygote
            self.poll.register(fd, select.POLLIN)
        self.wake()
        return zygote

    def give(self, zygote, digest):
        name, members = self.payloads[digest]
        texts = dict((key, self.texts[key]) for _, key in members if key not in zygote.texts)
        zygote.texts.update(texts)
        zygote.payloads.add(digest)
        self.tell(zygote, 0, marshal.dumps(('payload', digest, name, members, texts), MARSHAL))

    def tell(self, zygote, number, frame):
        data = HEADER.pack(number, len(frame)) + frame
        if zygote.ready:
            self.write(zygote, data)
        else:
            zygote.waiting += data

    def write(self, zygote, data):
        if not zygote.pending:
            try:
                data = data[os.write(zygote.infd, data):]
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    # Its output tells the rest.
                    return
        if data:
            if not zygote.pending:
                self.by_file[zygote.infd] = zygote
                self.poll.register(zygote.infd, select.POLLOUT)
                self.wake()
            zygote.pending += data

    def wake(self):
        try:
            os.write(self.wake_w, b'x')
        except OSError:
            # It is full: the thread wakes anyway.
            pass

    # The thread.

    def run(self):
        while not self.closed:
            ready = self.poll.poll(1000 if self.starting() else None)
            for fd, _ in ready:
                if fd == self.wake_r:
                    os.read(fd, 4096)
                    continue
                with self.lock:
                    zygote = self.by_file.get(fd)
                    if zygote is None:
                        continue
                    if fd == zygote.infd:
                        self.write_more(zygote)
                    else:
                        self.read(zygote, fd)

    def starting(self):
        """
        Return whether any zygote is not ready, and give up those that take too long.
        """
        with self.lock:
            starting = [zygote for zygote in self.zygotes.values() if not zygote.ready]
            for zygote in starting:
                if time.monotonic() > zygote.deadline:
                    self.give_up(zygote, 'it took too long')
            return bool(starting)

    def give_up(self, zygote, reason):
        zygote.output = zygote.output[-2000:] + b'\n' + reason.encode()
        self.lose(zygote)

    def write_more(self, zygote):
        try:
            del zygote.pending[:os.write(zygote.infd, zygote.pending)]
        except OSError as error:
            if error.errno != errno.EAGAIN:
                del zygote.pending[:]
        if not zygote.pending:
            self.poll.unregister(zygote.infd)
            del self.by_file[zygote.infd]

    def read(self, zygote, fd):
        try:
            chunk = os.read(fd, 1 << 18)
        except OSError:
            # A terminal that nobody has open any more.
            chunk = b''
        if not chunk:
            self.poll.unregister(fd)
            del self.by_file[fd]
            zygote.files.remove(fd)
            os.close(fd)
            if not zygote.files or (zygote.ready and fd == zygote.channel):
                self.lose(zygote)
        elif zygote.ready and fd == zygote.channel:
            zygote.buffer += chunk
            self.take_frames(zygote)
        else:
            zygote.output += chunk
            self.hear(zygote, fd)
            if len(zygote.output) > MOST_OUTPUT:
                # Each look at it takes longer than the last one.
                self.give_up(zygote, 'it says too much')

    def hear(self, zygote, fd):
        """
        Look at the output of a zygote that is not ready yet.
        """
        if zygote.ready:
            del zygote.output[:-2000]
            return
        head, mark, rest = zygote.output.partition(READY)
        if mark:
            zygote.ready, zygote.channel, zygote.output = True, fd, bytearray()
            zygote.buffer += rest
            self.write(zygote, ('%08d' % len(self.source)).encode() + self.source + zygote.waiting)
            del zygote.waiting[:]
        elif zygote.jobs:
            first = zygote.jobs[min(zygote.jobs)]
            first(marshal.dumps(('prompt', bytes(zygote.output)), MARSHAL))

    def take_frames(self, zygote):
        while len(zygote.buffer) >= HEADER.size:
            number, length = HEADER.unpack_from(zygote.buffer)
            end = HEADER.size + length
            if length > MOST_ANSWER:
                return self.give_up(zygote, 'its answer is too long')
            if len(zygote.buffer) < end:
                return
            answer = zygote.jobs.pop(number, None)
            if answer is not None:
                answer(bytes(zygote.buffer[HEADER.size:end]))
            del zygote.buffer[:end]
            if zygote.retired and not zygote.jobs:
                return self.lose(zygote)

    def lose(self, zygote):
        """
        Close a zygote that has ended, or is to end.
        """
        if self.zygotes.get(zygote.key) is zygote:
            del self.zygotes[zygote.key]
        if zygote in self.retired:
            self.retired.remove(zygote)
        if zygote.pending:
            self.poll.unregister(zygote.infd)
            del self.by_file[zygote.infd]
            del zygote.pending[:]
        for fd in zygote.files:
            self.poll.unregister(fd)
            del self.by_file[fd]
            os.close(fd)
        del zygote.files[:]
        os.close(zygote.infd)
        reason = 'gone' if zygote.ready else 'start'
        for answer in list(zygote.jobs.values()):
            answer(marshal.dumps(('fail', reason, zygote.output.decode('utf-8', 'replace')), MARSHAL))
        zygote.jobs.clear()
        try:
            threading.Thread(target=reap, args=(zygote.proc,)).start()
        except RuntimeError:
            # The system gives no thread. Most end with their input.
            pass


def reap(proc):
    """
    Wait for a process whose input is closed. One that does not end is killed.
    """
    end = time.monotonic() + PATIENCE
    while proc.poll() is None:
        if time.monotonic() > end:
            try:
                os.killpg(proc.pid, signal.SIGKILL)
            except OSError:
                # The process belongs to another user; its own zygote ends it.
                pass
            return
        time.sleep(0.02)
