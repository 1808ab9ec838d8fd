# SPDX-License-Identifier: BSD-3-Clause
"""
Processes, scripts, and functions whose output is wanted, as they run on a host for a program
elsewhere.

Each is a stream of items: (1, bytes) for output on stdout, (2, bytes) for stderr, and at last (0,
value), where the value is the exit status of a process or a script, or the result of a function. A
stream that its reader closes ends the process, and all that it has started in its group.

This module is fetched by a host that is asked to run something. It needs Python 3.6.

Imports that are not needed to run a process stand where they are used: ``subprocess``, with the
``re`` that it imports, takes a host longer than all the rest. So a process that needs nothing else
than pipes is started by the system's ``posix_spawn``.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import errno
import io
import os
import select
import sys
import threading
import time

import mitogen._tasks
import mitogen.core
from mitogen._tasks import signal
from mitogen.core import takes_econtext

#: Bytes that are read, and sent, at a time.
CHUNK = 1 << 16

#: Seconds between SIGTERM and SIGKILL.
GRACE = 2.0

#: Process groups that run now. A host that loses its parent ends them.
_groups = set()
_listening = []

#: Not empty once they are being ended because the host goes away.
_ending = []


def _end_group(pgid, number):
    try:
        os.killpg(pgid, number)
    except (OSError, AttributeError):
        # It has ended.
        pass


def _end_all():
    _ending.append(True)
    for pgid in list(_groups):
        _end_group(pgid, signal.SIGTERM)


@takes_econtext
def _end_with_host(econtext):
    """
    End all process groups when this process shuts down.
    """
    if not _listening:
        _listening.append(True)
        mitogen.core.listen(econtext.broker, 'shutdown', _end_all)


class _Pipes(object):
    """
    Our ends of a process's pipes: some are read and one is written, until all are closed.

    :param dict readers: descriptor to read -> number of the item.
    :param writer: descriptor to write, or None.
    :param bytes data: for the writer.
    :ivar woken: whether the task was cancelled.
    """
    def __init__(self, readers, writer=None, data=b''):
        self._readers = dict(readers)
        self._writer = writer
        self._data = memoryview(data)
        self._poller = select.poll()
        #: A cancelled task writes here, so that no thread waits for a process that says nothing.
        self._wake_read, self._wake_write = os.pipe()
        self.woken = False
        self._poller.register(self._wake_read, select.POLLIN)
        for fd in self._readers:
            self._poller.register(fd, select.POLLIN)
        if writer is not None:
            os.set_blocking(writer, False)
            self._poller.register(writer, select.POLLOUT)
            if not data:
                self._close_writer()

    def wake(self):
        try:
            os.write(self._wake_write, b'x')
        except OSError:
            # They are closed.
            pass

    def items(self):
        """
        Yield the bytes that are read, as they come, until every reader is at its end.
        """
        while self._readers:
            for fd, event in self._poller.poll():
                if fd == self._wake_read:
                    self.woken = True
                    return
                if fd == self._writer:
                    self._write()
                elif fd in self._readers:
                    data = self._read(fd)
                    if data:
                        yield self._readers[fd], data
                    else:
                        self._poller.unregister(fd)
                        del self._readers[fd]
        self._close_writer()

    def _read(self, fd):
        try:
            return os.read(fd, CHUNK)
        except OSError as e:
            # A terminal whose other end was closed.
            if e.errno != errno.EIO:
                raise
            return b''

    def _write(self):
        try:
            self._data = self._data[os.write(self._writer, self._data[:CHUNK]):]
        except BlockingIOError:
            return
        except OSError:
            # The process, or its terminal, does not take all of the input.
            self._data = self._data[:0]
        if not self._data:
            self._close_writer()

    def _close_writer(self):
        if self._writer is not None:
            self._poller.unregister(self._writer)
            os.close(self._writer)
            self._writer = None

    def close(self):
        self._close_writer()
        for fd in self._wake_read, self._wake_write:
            os.close(fd)
        self._wake_write = -1


def _variables(changes):
    """
    Return the environment of this process with some variables changed; None takes one out.
    """
    if not changes:
        return None
    env = dict(os.environ)
    for name, value in changes.items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    return env


def _take_terminal():
    # Between fork and exec: the new session gets its controlling terminal. Nothing is imported
    # here.
    _ioctl(0, _TIOCSCTTY, 0)


_ioctl = _TIOCSCTTY = None


class _Spawned(object):
    """
    A process that was started by :func:`_spawn`, with what :class:`subprocess.Popen` has of it.
    """
    returncode = None

    def __init__(self, pid):
        self.pid = pid

    def poll(self):
        """
        Return the exit status, or None if the process runs still.
        """
        return self._ask(os.WNOHANG)

    def wait(self):
        """
        Wait for the end of the process, and return its exit status.
        """
        return self._ask(0)

    def _ask(self, flags):
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, flags)
            except ChildProcessError:
                # This process does not want to know how its children end.
                pid, status = self.pid, 0
            if pid == self.pid:
                self.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return self.returncode


#: Lists the descriptors of this process.
_DESCRIPTORS = '/proc/self/fd'


def _can_spawn():
    """
    Tell whether the system's ``posix_spawn`` says why a program does not start, and can begin a
    session. The standard files must be open: no pipe may get the number of one. ``/proc`` must be
    there, which lists the descriptors.
    """
    try:
        for fd in 0, 1, 2:
            os.fstat(fd)
        os.stat(_DESCRIPTORS)
        name, version = os.confstr('CS_GNU_LIBC_VERSION').split()
        # Python has it since 3.8.
        return bool(os.posix_spawnp) and name == 'glibc' and tuple(map(int, version.split('.')[:2])) >= (2, 26)
    except (AttributeError, OSError, ValueError):
        return False


def _inherited():
    """
    Return the descriptors, from 3 upwards, that a new process would inherit. Those are not ours.
    """
    found = []
    for name in os.listdir(_DESCRIPTORS):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            # That of the list itself.
            pass
    return found


def _spawn(words, merged):
    """
    Start a process with pipes, in a session of its own, and return it with the descriptors to read,
    numbered, and the one to write. Without :mod:`subprocess`.
    """
    pipes = []
    try:
        for _ in range(2 if merged else 3):
            pipes.append(os.pipe())
        theirs = [pipes[0][0], pipes[1][1], pipes[-1][1]]
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(theirs)]
        actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()]
        # Python ignores these two.
        proc = _Spawned(os.posix_spawnp(
            words[0], words, os.environ, file_actions=actions, setsid=True, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ]))
    except BaseException:
        for fd in sum(pipes, ()):
            os.close(fd)
        raise
    for fd in set(theirs):
        os.close(fd)
    return proc, dict((read, i) for i, (read, _) in enumerate(pipes) if i), pipes[0][1]


def _start(argv, env, cwd, merged, terminal):
    """
    Start a process in a group of its own, and return it with the descriptors to read, numbered, and
    the one to write.
    """
    words = ['/bin/sh', '-c', argv] if isinstance(argv, str) else list(argv)
    if not (env or cwd or terminal) and words and all(words) and _can_spawn():
        return _spawn(words, merged)
    import subprocess
    pipe = subprocess.PIPE
    if not terminal:
        proc = subprocess.Popen(
            words, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT if merged else pipe, env=_variables(env), cwd=cwd,
            start_new_session=True, bufsize=0)
        # The descriptors outlive the files, which a process that is forgotten would close.
        copies = []
        try:
            for fp in proc.stdin, proc.stdout, proc.stderr:
                if fp is not None:
                    copies.append(os.dup(fp.fileno()))
        except BaseException:
            _give_up(proc, copies)
            raise
        finally:
            for fp in proc.stdin, proc.stdout, proc.stderr:
                if fp is not None:
                    fp.close()
        return proc, dict((fd, i) for i, fd in enumerate(copies) if i), copies[0]
    global _ioctl, _TIOCSCTTY
    import fcntl
    import pty
    import termios
    _ioctl, _TIOCSCTTY = fcntl.ioctl, termios.TIOCSCTTY
    ours, theirs = pty.openpty()
    try:
        proc = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, env=_variables(env), cwd=cwd, start_new_session=True,
            preexec_fn=_take_terminal)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        return proc, {ours: 1}, os.dup(ours)
    except BaseException:
        _give_up(proc, [ours])
        raise


def _give_up(proc, fds):
    """
    End a process that was started in vain, and close descriptors.
    """
    for fd in fds:
        os.close(fd)
    _end_group(proc.pid, signal.SIGKILL)
    proc.wait()


@takes_econtext
def process(argv, data=b'', env=None, cwd=None, merged=False, terminal=False, econtext=None):
    """
    Run a process. Its group is ended if the stream is closed before its end.

    :param argv: list of words, or a text for the shell.
    :param bytes data: its input.
    :param dict env: variables to change; None takes one out.
    :param bool merged: whether stderr is the same pipe as stdout.
    :param bool terminal: whether it has a terminal, and so one output.
    """
    if isinstance(data, str):
        data = data.encode('utf-8')
    if terminal:
        # The end of the input, as at a keyboard: the first one ends a line that has begun.
        data += b'\x04\x04'
    _end_with_host(econtext=econtext)
    proc, readers, writer = _start(argv, env, cwd, merged, terminal)
    pipes = None
    _groups.add(proc.pid)
    try:
        pipes = _Pipes(readers, writer, data)
        # From here on the writer belongs to the pipes.
        writer = None
        task = mitogen._tasks.current()
        before = task.wake

        def wake():
            pipes.wake()
            before()
        task.wake = wake
        for item in pipes.items():
            yield item
        if not pipes.woken:
            status = proc.wait()
            if _ending:
                # The signal may have been ours. The reader is told of the loss of the host, not of
                # this status.
                econtext.broker.join()
            yield 0, status
    finally:
        _finish(proc)
        _groups.discard(proc.pid)
        if pipes is not None:
            pipes.close()
        for fd in list(readers) + [writer]:
            if fd is not None:
                os.close(fd)


def _finish(proc):
    """
    End a process that runs still, and its group: it is asked first.
    """
    if proc.poll() is not None:
        return
    _end_group(proc.pid, signal.SIGTERM)
    try:
        until, pause = mitogen.core.now() + GRACE, 0.001
        while proc.poll() is None and mitogen.core.now() < until:
            time.sleep(pause)
            pause = min(0.05, 2 * pause)
    finally:
        _end_group(proc.pid, signal.SIGKILL)
        proc.wait()


# Functions whose output is wanted.

class _Capture(object):
    """
    Sends what this process writes to its stdout and stderr, also what its C libraries and its
    processes write, to a reader. The process is the reader's alone meanwhile.

    :param send: called with each item, on a thread of its own. An exception of
        it ends the capture.
    """
    def __init__(self, send):
        self._send = send
        self._saved, self._readers = {}, {}
        stop = ()
        try:
            for fd in 1, 2:
                self._saved[fd] = os.dup(fd)
                read, write = os.pipe()
                self._readers[read] = fd
                _flush()
                os.dup2(write, fd)
                os.close(write)
            stop = self._stop_read, self._stop_write = os.pipe()
            self._thread = threading.Thread(target=self._run, name='mitogen.capture')
            self._thread.daemon = True
            self._thread.start()
        except BaseException:
            # There is no descriptor left, for example. Nobody would read the pipes.
            self._give_back()
            for fd in list(self._readers) + list(stop):
                os.close(fd)
            raise

    def _run(self):
        poller = select.poll()
        for fd in list(self._readers) + [self._stop_read]:
            poller.register(fd, select.POLLIN)
        try:
            left, stopped = set(self._readers), False
            while left:
                # A process that was left behind may have the other ends: at the end only bytes that
                # are there already count.
                events = poller.poll(0 if stopped else None)
                if stopped and not events:
                    return
                for fd, _ in events:
                    if fd == self._stop_read:
                        stopped = True
                        poller.unregister(fd)
                        continue
                    data = os.read(fd, CHUNK)
                    if data:
                        self._send((self._readers[fd], data))
                    else:
                        poller.unregister(fd)
                        left.discard(fd)
        except (mitogen.core.Error, mitogen._tasks.TaskCancelled):
            # Nobody reads any more.
            pass
        finally:
            for fd in self._readers:
                os.close(fd)

    def _give_back(self):
        _flush()
        for fd, saved in self._saved.items():
            os.dup2(saved, fd)
            os.close(saved)

    def close(self):
        """
        Give stdout and stderr back, and wait until all output is sent.
        """
        self._give_back()
        os.close(self._stop_write)
        self._thread.join()
        os.close(self._stop_read)


def _flush():
    for fp in sys.stdout, sys.stderr:
        try:
            fp.flush()
        except (AttributeError, ValueError, OSError):
            # There is none, or it is closed, or nobody reads.
            pass


@takes_econtext
def with_output(names, args, kwargs, sender, items, size, econtext):
    """
    Call a function, and send its output and its result: a stream as :func:`mitogen._tasks.stream`.
    """
    _end_with_host(econtext=econtext)
    func, own = mitogen._tasks._find(econtext, *names)
    recv = mitogen.core.Receiver(econtext.router, policy=mitogen.core.has_parent_authority)
    lock = threading.Lock()
    window = mitogen._tasks._Window(recv, items, size)

    def send(item):
        msg = mitogen.core.Message.pickled(item, handle=sender.dst_handle)
        with lock:
            window.wait(len(msg.data))
            sender.context.send(msg)
    try:
        mitogen._tasks.current().wake = recv.close
        sender.send(recv.handle)
        capture = _Capture(send)
        try:
            value = func(*args, **dict(kwargs, **own))
        finally:
            capture.close()
        send((0, value))
    finally:
        recv.close()


def script(source, path, argv, package=None, data=None):
    """
    Run the text of a script as a program would be: `__name__` is ``__main__``. Return its exit
    status.

    :param str source: its text.
    :param str path: its name, for tracebacks.
    :param list argv: its arguments.
    :param package: what its relative imports start from, or None.
    :param data: bytes of its stdin; None leaves that of the process, which is empty.
    """
    module = type(sys)('__main__')
    module.__file__ = path
    module.__package__ = package
    import linecache
    linecache.cache[path] = len(source), None, source.splitlines(True), path
    with _stdin(data):
        return _as_program(module, [path] + list(argv), lambda: eval(compile(source, path, 'exec'), module.__dict__))


class _stdin(object):
    """
    Have bytes come from the stdin of this process, within a block; None changes nothing.
    """
    def __init__(self, data):
        self._data = data

    def __enter__(self):
        if self._data is None:
            return
        import tempfile
        self._saved, self._fd = sys.stdin, os.dup(0)
        try:
            with tempfile.TemporaryFile() as fp:
                fp.write(self._data)
                fp.flush()
                fp.seek(0)
                os.dup2(fp.fileno(), 0)
            sys.stdin = io.open(0, closefd=False)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc_info):
        if self._data is None:
            return
        if sys.stdin is not self._saved:
            sys.stdin.close()
        sys.stdin = self._saved
        os.dup2(self._fd, 0)
        os.close(self._fd)


def module_as_script(name, argv):
    """
    Run a module as ``python -m`` does. Return its exit status.
    """
    import runpy
    main = sys.modules.get('__main__')
    return _as_program(
        main, [name] + list(argv), lambda: runpy.run_module(name, run_name='__main__', alter_sys=True))


def _as_program(module, argv, run):
    """
    Run something with the arguments and the main module of a program, and return the exit status
    that it would have.
    """
    saved = sys.argv, sys.modules.get('__main__')
    _set_main(argv, module)
    try:
        run()
        return 0
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int):
            return (e.code or 0) & 0xff
        sys.stderr.write('%s\n' % (e.code,))
        return 1
    except Exception:
        _show_error()
        return 1
    finally:
        _set_main(*saved)


def _set_main(argv, module):
    # A process that was started by another one may have no main module.
    sys.argv = argv
    if module is None:
        sys.modules.pop('__main__', None)
    else:
        sys.modules['__main__'] = module


def _show_error():
    """
    Print the traceback from where the program begins.
    """
    kind, value, first = sys.exc_info()
    while first is not None and os.path.basename(first.tb_frame.f_code.co_filename) in _not_shown:
        first = first.tb_next
    import traceback
    traceback.print_exception(kind, value, first)


#: Files of the lines that call a program.
_not_shown = (os.path.basename(_flush.__code__.co_filename), 'runpy.py', '<frozen runpy>')
