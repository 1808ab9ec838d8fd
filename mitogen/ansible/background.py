# SPDX-License-Identifier: BSD-3-Clause
"""
Asynchronous tasks. Ansible's own wrapper keeps their time and their results; here the program that
it starts for the module becomes a fork that has the module's texts already. A part of the text of a
zygote; see `zygote.py`.
"""

import atexit
import gc
import os
import subprocess
import sys

from mitogen.ansible.child import leave


def prepare(payload):
    """
    Compile a module that runs in the background. The zygote cannot learn from its children: they
    outlive their jobs.
    """
    for name in payload.modules:
        try:
            payload.code(name)
        except SyntaxError:
            # It is for another version of Python, and may never be imported.
            pass


def stand_in(child, path):
    """
    Have the program that is started with `path` as its last word be a fork that runs the module of
    `child`.
    """
    start = subprocess.Popen

    def popen(words, **options):
        if os.fsencode(words[-1]) == os.fsencode(path):
            subprocess.Popen = start
            # An interpreter that starts would set the signals like this one's.
            options.update(preexec_fn=lambda: live(child), restore_signals=False)
        return start(words, **options)

    subprocess.Popen = popen


def live(child):
    """
    Run a module instead of a program, with the files that `Popen` has made, and end.
    """
    status = 1
    try:
        # The parent waits until its own pipe to us is closed. The rest is what an exec would close,
        # too.
        os.closerange(3, os.sysconf('SC_OPEN_MAX') if sys.platform == 'darwin' else highest_file() + 1)
        gc.enable()
        atexit._clear()
        status = leave(child.run())
    except BaseException:
        import traceback
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def highest_file():
    """
    Return a number that no open file of ours exceeds.
    """
    try:
        return max(map(int, os.listdir('/proc/self/fd')))
    except OSError:
        return 4096
