# SPDX-License-Identifier: BSD-3-Clause
"""
Stacks: the stack of each thread, and how it differs from the last time.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house
import threading  # house


#: The snapshot before, for comparison.
_last = None


def format_stacks():
    """
    Return text that shows what each thread is doing.
    """
    import traceback
    names = dict((thread.ident, thread.name)
                 for thread in threading.enumerate())
    lines = []
    for ident, frame in sorted(sys._current_frames().items()):
        lines.append('# PID %d ThreadID: (%s) %s; %r' % (
            os.getpid(), names.get(ident, '?'), ident, frame))
        for path, line, function, text in traceback.extract_stack(frame):
            lines.append('File: "%s", line %d, in %s' % (path, line, function))
            if text:
                lines.append('    ' + text.strip())
        lines.append('')
    return '\n'.join(lines) + '\n'


def get_snapshot():
    """
    Return :func:`format_stacks`, and how it differs from the last time.
    """
    global _last
    import difflib
    now = format_stacks()
    then, _last = _last, now
    text = now
    if then is not None:
        text += '\n\n' + ('\n'.join(difflib.unified_diff(
            then.splitlines(), now.splitlines(),
            fromfile='then', tofile='now', lineterm='',
        )) or '(no change since last time)\n')
    return text
