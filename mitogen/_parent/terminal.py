# SPDX-License-Identifier: BSD-3-Clause
"""
Settings of a terminal.
"""

from __future__ import absolute_import  # house

import termios  # house

import mitogen.core  # house
from mitogen.parent import LOG  # house


def flags(names):
    """
    Return the OR of the `termios` constants in `names`, a string with spaces
    between them. Those that this platform lacks are left out.
    """
    result = 0
    for name in names.split():
        value = getattr(termios, name, None)
        if value is None:
            LOG.debug('flags(): this termios module has no %s', name)
        else:
            result |= value
    return result


def cfmakeraw(tflags):
    """
    Change a list from :func:`termios.tcgetattr` so that the terminal passes
    bytes through as they are, without echo, and return it.
    """
    iflag, oflag, cflag, lflag = tflags[:4]
    iflag &= ~flags('IMAXBEL IXOFF INPCK BRKINT PARMRK ISTRIP INLCR '
                    'ICRNL IXON IGNPAR IGNBRK')
    oflag &= ~flags('OPOST')
    cflag &= ~flags('CSIZE PARENB')
    cflag |= flags('CS8 CREAD')
    lflag &= ~flags('ECHO ECHOE ECHOK ECHONL ICANON ISIG IEXTEN NOFLSH '
                    'TOSTOP PENDIN')
    return [iflag, oflag, cflag, lflag] + list(tflags[4:])


def disable_echo(fd):
    """
    Put the terminal behind the descriptor `fd` in raw mode.
    """
    when = getattr(termios, 'TCSASOFT', 0)
    if not mitogen.core.IS_WSL:
        # The Windows subsystem refuses to wait for output to drain.
        when |= termios.TCSAFLUSH
    termios.tcsetattr(fd, when, cfmakeraw(termios.tcgetattr(fd)))
