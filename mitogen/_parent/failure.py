# SPDX-License-Identifier: BSD-3-Clause
"""
The text about a connection that failed, with a hint.
"""

from __future__ import absolute_import  # house

import re  # house

import mitogen.core  # house
from mitogen.core import to_text  # house
from mitogen.parent import _error_text, _full_text, Argv, EofError, get_history, LOG, returncode_to_str  # house


#: Of each: a pattern, which is searched in the text of a failure without regard
#: to case, a hint, and the kind of the failure. The first match counts, so
#: special ones come first. A hint may name what a group of the pattern matched.
_HINTS = [(re.compile(_entry[0], re.I),) + _entry[1:] for _entry in (
    (u'host key verification failed|host identification has changed',
     u'the key of the host is unknown or has changed. Make sure that it is the '
     u'right host, then put its key into the known_hosts file; see the option '
     u'check_host_keys.',
     'key'),
    (u'must have a tty|a terminal is required|no tty present|requiretty',
     u'the tool insists on a terminal of its own. Look for "requiretty" and '
     u'"use_pty" in the configuration of sudo.',
     None),
    (u'not in the sudoers|is not allowed to|may not run|'
     u'doas: operation not permitted',
     u'the configuration of the tool does not let this user become that one.',
     'auth'),
    (u'unknown user|user \\S+ does not exist|no such user|has no user|'
     u'no passwd entry',
     u'there is no user of that name; see the option username.',
     'auth'),
    (u'could not resolve|name or service not known|name resolution',
     u'the name of the host is not known; see the option hostname, and the '
     u'configuration of the ssh client.',
     'down'),
    (u'connection refused|no route to host|network is unreachable|'
     u'connect to host .* timed out',
     u'nothing answers there. Does the host run, is the port right, does a '
     u'firewall let us pass?',
     'down'),
    (u'kex_exchange_identification|connection (to .* )?closed by|'
     u'connection reset by|too many authentication failures',
     u'the server ended the connection; its log says why.',
     'down'),
    (u'password was requested|password is required',
     u'no password was given; see the option password.',
     'auth'),
    (u'incorrect password|password is incorrect|sorry, try again|'
     u'authentication fail',
     u'the password is not right, or belongs to another user than the one who '
     u'is asked for it: sudo asks for that of who calls it, su for that of '
     u'who is called.',
     'auth'),
    (u'authentication is incorrect|permission denied \\(|'
     u'permission denied, please',
     u'the server does not let this user in. See the options username, '
     u'identity_file and password.',
     'auth'),
    (u'no such container|no container with name|container not known|'
     u'\\(notfound\\)|jail .* not found|instance not found|is not running',
     u'there is no container of that name, or it does not run.',
     'down'),
    (u'cannot connect to the docker daemon|cannot connect to podman|error during connect',
     u'the service of the containers does not answer. Does it run, and may this '
     u'user talk to it?',
     'down'),
    (u'account is (currently )?not available|'
     u'account (has|is) (expired|locked)',
     u'the account is closed to logins.',
     'auth'),
    (u'queued and waiting for resources',
     u'what was asked of Slurm is not free; squeue says who has it. A larger '
     u'connect_timeout waits longer.',
     None),
    (u'unable to (allocate resources|confirm allocation|create step)',
     u'Slurm does not give this; sinfo and squeue say what there is.',
     None),
    (u'no python found: there is no',
     u'no Python was found. Install one there, or say where one is: option '
     u'python_path.',
     'python'),
    (u"child start failed: .{0,40}no such file or directory: u?'([^'\n]{1,200})'",
     u'\\1 is not there. Install it, or if it is the interpreter, say where one '
     u'is: option python_path.',
     'python'),
    (u'permission denied|operation not permitted',
     u'this user may not run the program, or enter a directory on the way to '
     u'it. Look at the modes, and at mounts that forbid to run programs.',
     None),
    (u'command not found|: not found|no such file or directory|'
     u'executable file not found|cannot execute',
     u'a program of the command line is not there. If it is the interpreter, '
     u'say where one is: option python_path.',
     'python'),
    (u'exec format error',
     u'the program is not made for that machine, or is a script whose first '
     u'line does not say what runs it.',
     None),
    (u'syntaxerror|importerror|modulenotfounderror|no module named|'
     u'fatal python error',
     u'the interpreter is broken, or older than 2.7. Run the command by hand, '
     u'or choose another one: option python_path.',
     'python'),
)]

#: Characters of a text that are searched. The time may grow with the square of
#: their number, and a context that was asked to connect may say anything.
_SEARCHED_MAX = 8192

# Hints for a failure whose text has none of those patterns.
_HINT_ENDED = (
    u'the command ended before a Python spoke. Run it by hand; is python_path '
    u'an interpreter, and does it work?')
_HINT_DIED = (
    u'the interpreter started and ended before it was ready. Its output '
    u'says why, unless it was killed, as for lack of memory.')
_HINT_SILENT = (
    u'no Python spoke in time. The host may be out of reach, or the tool may '
    u'be asking something that nobody answers; see it by running the command '
    u'by hand. Or it takes longer than the option connect_timeout allows.')
_HINT_SLOW = (
    u'the interpreter started, but was not ready in time. A slow host or '
    u'link needs a larger connect_timeout.')


def _find_hint(text):
    """
    Return the hint for a failure that says `text`, or None.
    """
    return _find_hint_and_kind(text)[0]


def _find_hint_and_kind(text):
    """
    Return the hint for a failure that says `text`, and its kind, or None for
    each.
    """
    if len(text) > _SEARCHED_MAX:
        text = text[:_SEARCHED_MAX // 2] + u'\n' + text[-_SEARCHED_MAX // 2:]
    for regex, hint, kind in _HINTS:
        match = regex.search(text)
        if match:
            return match.expand(hint), kind
    return None, None


def _history_of(conn):
    """
    Return the last lines that were received, as text of `history_chars` at
    most.
    """
    text = get_history([conn.stdio_stream, conn.stderr_stream])
    if len(text) > conn.history_chars:
        text = u'[...]' + text[-conn.history_chars:]
    return text


def _name_so_far(conn):
    """
    Return the name of the context, or as much of it as is known by now.
    """
    name = conn.context.name or conn.options.name
    if name or conn.proc is not None:
        return name or conn._get_name()
    try:
        return conn._get_name()
    except AttributeError:
        # The name holds the id of the process, which was not started.
        return conn.name_prefix


def _times_of(conn):
    """
    Return a line that tells how many seconds each stage took, the current one
    until now.
    """
    ends = [when for _, when in conn._stages[1:]] + [mitogen.core.now()]
    return u'Times: %s.' % u', '.join([
        u'%s %.3f s' % (stage.partition(u' (')[0], end - start)
        for (stage, start), end in zip(conn._stages, ends)
    ])


def _command_of(conn):
    """
    Return the line that shows the command.
    """
    try:
        command = to_text(str(Argv(conn.get_boot_command())))
    except Exception as e:
        command = u'(%s)' % (_error_text(e),)
    return u'Command was: ' + command


def _facts_of(conn, text, show_history, otherwise):
    """
    Return what :func:`_describe_failure` tells, as a list of lines.
    """
    lines = [u'Context %s (%s): %s.' % (
        conn.context.context_id, _name_so_far(conn), conn._stage)]
    if conn._stages:
        lines.append(_times_of(conn))
    status = conn.proc and conn.proc.poll()
    if status is not None:
        lines.append(u'The process %s.' % (returncode_to_str(status),))
    history = _history_of(conn)
    if show_history and history:
        lines.append(u'Last lines received:\n' + history)
    said, command, _ = text.partition(u'Command was: ')
    # Look at the last output only: earlier lines of the tool may be harmless,
    # such as that it cannot resolve our name.
    hint = _find_hint(said) or _find_hint(history) or otherwise
    if hint:
        lines.append(u'Hint: ' + hint)
    if conn.options.python_path and not command:
        lines.append(_command_of(conn))
    return lines


def _describe_failure(conn, text=u'', show_history=True, otherwise=None):
    """
    Return text for a person: which context was to be started, how far the
    attempt got, how long each stage took, and a hint. Broker thread.

    :param Connection conn: the attempt.
    :param text: what the exception says already.
    :param bool show_history: False if it shows the last output, too.
    :param otherwise: the hint if none fits what was said.
    """
    try:
        facts = _facts_of(conn, text, show_history, otherwise)
    except Exception:
        # A connection method of an application may raise anything, and a
        # thread waits for the result.
        LOG.exception('%r: cannot describe the failure', conn)
        return u''
    return u'\n'.join(facts)


def _note_facts(conn, exc):
    """
    Have an exception tell in its `facts`, for programs, how far the attempt got,
    how the process ended and what it printed. Broker thread.
    """
    exc.facts = {
        u'stage': conn._stage.partition(u' (')[0],
        u'returncode': conn.proc and conn.proc.poll(),
        u'output': _history_of(conn),
        u'timeout': isinstance(exc, mitogen.core.TimeoutError),
    }


def _facts_of_failure(exc):
    """
    Return a dict about what an attempt to connect has raised: `kind`, one of
    ``auth``, ``key``, ``down``, ``python``, ``timeout`` or None; `stage`, `hint`,
    `returncode` and `output`, which may be None. They may be what a context says
    that was asked to connect.
    """
    facts = getattr(exc, 'facts', None)
    facts = dict(facts) if isinstance(facts, dict) else {}
    for name, types in ((u'stage', mitogen.core.UnicodeType),
                        (u'output', mitogen.core.UnicodeType),
                        (u'returncode', mitogen.core.integer_types)):
        value = facts.get(name)
        facts[name] = value if isinstance(value, types) else None
    text = _full_text(exc)
    _, said, hint = text.rpartition(u'Hint: ')
    # Not the command: that of the search for a Python has what it may say.
    own, kind = _find_hint_and_kind(
        _error_text(exc).partition(u'Hint: ')[0].partition(u'Command was: ')[0])
    facts[u'hint'] = own or (hint.partition(u'\n')[0] if said else None)
    if facts.get(u'timeout'):
        kind = u'timeout'
    facts[u'kind'] = kind or _find_hint_and_kind(facts[u'output'] or u'')[1]
    facts[u'output'] = facts[u'output'] or u''
    return facts


def _timeout_error(conn):
    """
    Return the exception for a child that was not ready in time.
    """
    hint = _HINT_SLOW if conn._stage == conn.STAGE_SENT else _HINT_SILENT
    return mitogen.core.TimeoutError(
        u'Connection timed out after %.2f seconds. %s' % (
            conn.options.connect_timeout,
            _describe_failure(conn, otherwise=hint)))


def _eof_error(conn):
    """
    Return the exception for a child that closed its files before it was
    ready.
    """
    hint = _HINT_DIED if conn._stage == conn.STAGE_SENT else _HINT_ENDED
    exc = EofError(u'%s%s' % (to_text(conn.eof_error_msg), _history_of(conn)))
    exc.detail = _describe_failure(conn, show_history=False, otherwise=hint)
    return exc
