# SPDX-License-Identifier: BSD-3-Clause
"""
Run a program that starts `ssh` by itself, such as rsync, so that its remote
end runs in a context that is connected already, by whatever method.

Three processes take part:

* the caller of :func:`run` starts the program, with a directory in front of
  its `PATH` that holds an `ssh` of ours;
* that `ssh` becomes a child context of the caller, by a socket that it
  inherits from the program. It keeps its standard files;
* the destination runs the command that `ssh` was given.

Between the last two, each end copies what its local source yields to a handle
of the other, which writes it to its local sink and acknowledges it, so that no
more than a window is ever on its way. Next to that, control messages are
tuples `(command, argument)`:

===========  ===================  ==========================================
command      sent by              argument
===========  ===================  ==========================================
``start``    `ssh`                its handles, `(control, data)`
``ack``      both                 how many bytes were written
``exit``     destination          exit status of the command
``exit``     `ssh`                None: the command is to be terminated
===========  ===================  ==========================================
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import mitogen
import mitogen.core
import mitogen.parent


LOG = mitogen.core.LazyLogger('mitogen.fakessh')

#: Bytes that may be on their way in each direction.
WINDOW_SIZE = 1048576

#: Exit status of OpenSSH when it, rather than the command, failed.
SSH_FAILED = 255


class Error(mitogen.core.Error):
    """
    The `ssh` of ours cannot do what it is asked for.
    """
    pass
