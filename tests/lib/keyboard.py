"""
Programs on a terminal of their own, as a person starts them.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import testlib


class Terminal(object):
    """
    A program on a terminal, until the end of the block.

    :ivar text: what it has shown so far.
    """
    def __init__(self, argv, columns=120, **env):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 40, columns, 0, 0))

        def take():
            # Signals may be ignored where the tests were started in the background.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        environ = dict(os.environ, **dict({'TERM': 'xterm-256color'}, **env))
        for name in [name for name in ('NO_COLOR', 'FORCE_COLOR', 'COLUMNS', 'LINES') if name not in env]:
            environ.pop(name, None)
        self.proc = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=take, env=environ, cwd='/')
        os.close(theirs)
        self._fd = ours
        self.text = ''

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
        os.close(self._fd)

    def type(self, text):
        os.write(self._fd, text.encode())

    def _read(self, seconds):
        if not select.select([self._fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            # The program has ended.
            return False
        self.text += data.decode('utf-8', 'replace')
        return bool(data)

    def wait_for(self, wanted):
        """
        Wait until a text is shown that was not there before, and return what stands before it since
        the last time.
        """
        end = time.time() + testlib.patience()
        start = getattr(self, '_seen', 0)
        while wanted not in self.text[start:]:
            assert time.time() < end and self._read(1), (wanted, self.text)
        self._seen = self.text.index(wanted, start) + len(wanted)
        return self.text[start:self._seen - len(wanted)]

    def status(self):
        """
        Read until the program ends, and return its exit status.
        """
        end = time.time() + testlib.patience()
        while self._read(0.2):
            assert time.time() < end, self.text
        return self.proc.wait()


def mitogen(*words, **options):
    """
    Start the program `mitogen` on a terminal.
    """
    return Terminal([sys.executable, '-m', 'mitogen.command'] + list(words), **options)
