# SPDX-License-Identifier: BSD-3-Clause
"""
The daemon, as a worker sees it: where it listens, and how it is started.
"""

from __future__ import absolute_import

import contextlib
import fcntl
import os
import select
import socket
import subprocess
import sys

from mitogen.ansible import wire

#: File in the folder of a run.
SOCKET = 'mitogen'

#: Variable that names the file for the log of the daemon.
LOG = 'MITOGEN_ANSIBLE_LOG'

#: Bytes that the address of a socket may have.
LONGEST = 100


class DaemonError(Exception):
    """
    There is no daemon, or none any more.
    """
    pass


class Client(object):
    """
    A worker's connection to the daemon.

    :param str folder: that only this run uses, and nobody else may enter.
    :param int controller: process with which the daemon ends.
    :param str home: folder in which the daemon keeps texts from run to run.
    """
    sock = None
    #: Whether the daemon has asked, and waits for `more`.
    asked = False
    #: (process, folder, socket) that no client of this worker uses now. Each item of a loop has a
    #: client.
    spare = None

    def __init__(self, folder, controller, home):
        self.folder, self.controller, self.home = folder, controller, home

    def ask(self, *request):
        """
        Return the answer, or the first of several: see `more`.

        :raises DaemonError: there is none.
        """
        if self.sock is None:
            self.sock = self.take_spare() or connect(self.folder, self.controller, self.home)
        return self.exchange(request)

    def more(self, *answer):
        """
        Answer a question of the daemon, and return its next answer.
        """
        return self.exchange(answer)

    def exchange(self, value):
        try:
            wire.send(self.sock, value)
            answer = wire.receive(self.sock)
            self.asked = answer[0] == 'prompt'
            return answer
        except wire.GoneError as error:
            self.drop()
            raise DaemonError('the daemon has ended: %s' % (error,))
        except BaseException:
            # A time limit, for example. A late answer of the daemon must not
            # be read as the answer to the next question; closing the socket
            # also ends its work for us.
            self.drop()
            raise

    def close(self):
        """
        Need the daemon no longer.
        """
        if self.sock is not None and not self.asked and Client.spare is None and os.getpid() != self.controller:
            Client.spare, self.sock = (os.getpid(), self.folder, self.sock), None
        self.drop()

    def drop(self):
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def take_spare(self):
        """
        Return a socket that was left, or None. A daemon that has ended is not waited for.
        """
        pid, folder, sock = Client.spare or (None, None, None)
        Client.spare = None
        if sock is None:
            return None
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        if pid == os.getpid() and folder == self.folder and not poll.poll(0):
            return sock
        sock.close()
        return None


@contextlib.contextmanager
def address(folder):
    """
    Yield the name of a run's socket, in a form that is short enough.
    """
    path = os.path.join(folder, SOCKET)
    if len(os.fsencode(path)) <= LONGEST:
        yield path
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield '/proc/self/fd/%d/%s' % (fd, SOCKET)
    finally:
        os.close(fd)


def connect(folder, controller, home):
    """
    Return a socket to the daemon of this run, which is started if need be.
    """
    try:
        sock = try_to_connect(folder)
        if sock is None:
            start(folder, controller, home)
            sock = try_to_connect(folder)
    except (IOError, OSError, subprocess.SubprocessError) as error:
        raise DaemonError('the daemon cannot be started: %s' % (error,))
    if sock is None:
        raise DaemonError('the daemon does not listen')
    if not wire.is_same_user(sock):
        sock.close()
        raise DaemonError('the daemon is not ours')
    return sock


def try_to_connect(folder):
    sock = socket.socket(socket.AF_UNIX)
    try:
        with address(folder) as name:
            sock.connect(name)
    except (IOError, OSError):
        sock.close()
        return None
    return sock


def start(folder, controller, home):
    """
    Start a daemon, unless another worker was faster. It listens at once: our
    connection waits until it has all it needs.
    """
    status = os.lstat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise OSError('others may enter %s' % (folder,))
    with open(os.path.join(folder, SOCKET + '.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sock = try_to_connect(folder)
        if sock is not None:
            return sock.close()
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, SOCKET))
        with socket.socket(socket.AF_UNIX) as listener:
            with address(folder) as name:
                listener.bind(name)
            listener.listen(1024)
            launch(listener, controller, os.path.join(folder, SOCKET), home)


def open_log():
    """
    Return the file for the log of the daemon.
    """
    path = os.environ.get(LOG) or os.devnull
    try:
        return open(path, 'ab')
    except (IOError, OSError) as error:
        raise OSError('%s is %r, and that file cannot be written: %s' % (LOG, path, error.strerror))


def launch(listener, controller, path, home):
    """
    Run the daemon. Nothing of it is seen by the terminal, and the import path
    is ours.
    """
    folders = [os.path.abspath(folder) for folder in sys.path if folder]
    code = 'import sys; sys.path[:] = %r; from mitogen.ansible.daemon import main; main()' % (folders,)
    with open_log() as log:
        subprocess.Popen(
            [sys.executable, '-S', '-c', code, str(listener.fileno()), str(controller), path, home],
            pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            start_new_session=True, cwd='/')
