# SPDX-License-Identifier: BSD-3-Clause
"""
What a person can do about a connection that failed.
"""

from __future__ import absolute_import  # house

import re  # house


#: What is found in the text of a failure, in letters of either case, and what
#: to do about it. The first that is found counts, so the special comes first.
_HINTS = [(re.compile(_pattern, re.I), _hint) for _pattern, _hint in (
    (u'host key verification failed|host identification has changed',
     u'the key of the host is unknown or has changed. Make sure that it is the '
     u'right host, then put its key into the known_hosts file; see the option '
     u'check_host_keys.'),
    (u'must have a tty|a terminal is required|no tty present|requiretty',
     u'the tool insists on a terminal of its own. Look for "requiretty" and '
     u'"use_pty" in the configuration of sudo.'),
    (u'not in the sudoers|is not allowed to|may not run|'
     u'doas: operation not permitted',
     u'the configuration of the tool does not let this user become that one.'),
    (u'unknown user|user \\S+ does not exist|no such user|has no user|'
     u'no passwd entry',
     u'there is no user of that name; see the option username.'),
    (u'could not resolve|name or service not known|name resolution',
     u'the name of the host is not known; see the option hostname, and the '
     u'configuration of the ssh client.'),
    (u'connection refused|no route to host|network is unreachable|'
     u'connect to host .* timed out',
     u'nothing answers there. Does the host run, is the port right, does a '
     u'firewall let us pass?'),
    (u'kex_exchange_identification|connection (to .* )?closed by|'
     u'connection reset by|too many authentication failures',
     u'the server ended the connection; its log says why.'),
    (u'password was requested|password is required',
     u'no password was given; see the option password.'),
    (u'incorrect password|password is incorrect|sorry, try again|'
     u'authentication fail',
     u'the password is not right, or belongs to another user than the one who '
     u'is asked for it: sudo asks for that of who calls it, su for that of '
     u'who is called.'),
    (u'authentication is incorrect|permission denied \\(|'
     u'permission denied, please',
     u'the server does not let this user in. See the options username, '
     u'identity_file and password.'),
    (u'no such container|no container with name|container not known|'
     u'\\(notfound\\)|jail .* not found|instance not found|is not running',
     u'there is no container of that name, or it does not run.'),
    (u'account is (currently )?not available|'
     u'account (has|is) (expired|locked)',
     u'the account is closed to logins.'),
    (u'permission denied|operation not permitted',
     u'this user may not run the program, or enter a directory on the way to '
     u'it. Look at the modes, and at mounts that forbid to run programs.'),
    (u'command not found|: not found|no such file or directory|'
     u'executable file not found|cannot execute',
     u'a program of the command line is not there. If it is the interpreter, '
     u'say where one is: option python_path.'),
    (u'exec format error',
     u'the program is not made for that machine, or is a script whose first '
     u'line does not say what runs it.'),
    (u'syntaxerror|importerror|modulenotfounderror|no module named|'
     u'fatal python error',
     u'the interpreter is broken, or older than 2.7. Run the command by hand, '
     u'or choose another one: option python_path.'),
)]

# The same for who says nothing that is known.
_HINT_ENDED = (
    u'the command ended before a Python spoke. Run it by hand; is python_path '
    u'an interpreter, and does it work?')
_HINT_DIED = (
    u'the interpreter started and ended before it was ready. What it printed '
    u'says why, unless it was killed, as for want of memory.')
_HINT_SILENT = (
    u'no Python spoke in time. The host may be out of reach, or the tool may '
    u'be asking something that nobody answers; see it by running the command '
    u'by hand. Or it takes longer than the option connect_timeout allows.')
_HINT_SLOW = (
    u'the interpreter started, but was not ready in time. A slow host or '
    u'link needs a larger connect_timeout.')


def _find_hint(text):
    """
    Return what may help about a failure that says `text`, or None.
    """
    for regex, hint in _HINTS:
        if regex.search(text):
            return hint
    return None
