"""
Children that are a shell, and the end of them.
"""

import errno
import os

import mitogen.core
import mitogen.parent

import testlib


def run_shell(create, script, **kwargs):
    return create(args=['/bin/sh', '-c', script], **kwargs)


def read_all(fp):
    """
    Return what comes out of a file until it ends; a terminal ends with an error.
    """
    chunks = []
    while True:
        try:
            chunk = os.read(fp.fileno(), 65536)
        except OSError as e:
            assert e.errno == errno.EIO
            chunk = b''
        if not chunk:
            return b''.join(chunks)
        chunks.append(chunk)


def finish(proc):
    """
    Reap a process and close our ends; return its exit status.
    """
    code = testlib.wait_for(lambda: (proc.poll(),) if proc.poll() is not None else None)[0]
    mitogen.parent._close_all(proc.stdin, proc.stdout, proc.stderr)
    return code
