"""
Functions about the process that a child is: its environment, threads, signals, descriptors and
memory.
"""

import os
import signal
import sys
import threading
import time

import mitogen.core


def return_lock():
    return threading.Lock()


def environ(name=None):
    return dict(os.environ) if name is None else os.environ.get(name)


def sys_attribute(name):
    return getattr(sys, name)


def thread_names():
    return sorted(thread.name for thread in threading.enumerate())


def current_thread_name():
    return threading.current_thread().name


def main_thread_id_and_pid():
    return os.getpid(), os.getppid()


def mitogen_globals():
    import mitogen
    return {
        'is_master': mitogen.is_master,
        'context_id': mitogen.context_id,
        'parent_id': mitogen.parent_id,
        'parent_ids': list(mitogen.parent_ids),
        'version': mitogen.__version__,
        'main': mitogen.main()(mitogen_globals) is None,
    }


def command_line():
    with open('/proc/self/cmdline', 'rb') as fp:
        return fp.read()


def run_shell(command):
    """
    Run a shell command whose output goes where this process's own goes; return its exit status.
    """
    import subprocess
    return subprocess.call(['/bin/sh', '-c', command])


def blocking_modes():
    return [mitogen.core.get_blocking(fd) for fd in (0, 1, 2)]


def descriptors():
    found = []
    for name in os.listdir('/proc/self/fd'):
        try:
            found.append(os.readlink('/proc/self/fd/' + name))
        except OSError:
            pass
    return found


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError('no text')

    __repr__ = __str__


def raise_unprintable():
    raise Unprintable()


def ignore_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def leave_threads():
    """
    Leave two threads that never end by themselves, one of them no daemon.
    """
    for daemon in (True, False):
        thread = threading.Thread(target=time.sleep, args=(3600,))
        thread.daemon = daemon
        thread.start()


def read_stdin():
    return os.read(0, 100)


def say_and_spin(sender, path):
    """
    Tell a sender that this runs, then hold the interpreter with pure Python code, until there is a
    file.
    """
    sender.send(None)
    count = 0
    while True:
        for _ in range(100000):
            count += 1
        if os.path.exists(path):
            return count


def resident():
    """
    Return how many bytes of memory this process has.
    """
    with open('/proc/self/statm') as fp:
        return int(fp.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def peak():
    """
    Return how many bytes of memory this process has had at most.
    """
    with open('/proc/self/status') as fp:
        return [int(line.split()[1]) << 10 for line in fp if line.startswith('VmHWM')][0]
