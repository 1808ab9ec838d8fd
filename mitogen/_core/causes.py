# SPDX-License-Identifier: BSD-3-Clause
"""
The lines in which a CallError tells of causes, notes, members of a group and errno.

They are the last ones of its text, so that a peer of any version shows them.
Each begins with a bar. Behind that stands a key with its value, or a dot and
more of the value before, or another bar and a line about the exception before::

    builtins.ValueError: outer
      File "app.py", line 4, in f
    | note: something
    | cause: builtins.OSError: inner
    | .   File "app.py", line 2, in f
    | | errno: 5
"""

from __future__ import absolute_import  # house

from mitogen.core import _module, _seldom, _SELDOM, integer_types, PY3, to_text, UnicodeType  # house


if _SELDOM:
    #: Characters that these lines have at most; that the text, the traceback
    #: and a note of one exception have at most.
    _told_max, _text_max, _frames_max, _note_max = 4000, 500, 1000, 500
    #: Levels of exceptions that are told of, and exceptions altogether.
    _depth_max, _related_max = 8, 20


@_seldom
def _text_of(exc):
    """Return ``module.Class: text`` of an exception."""
    cls = exc.__class__
    try:
        try:
            text = to_text(exc)
        except UnicodeError:
            text = UnicodeType(str(exc), 'utf-8', 'replace')
    except Exception:
        # Not even `repr` can be trusted now.
        text = u'(no text)'
    return to_text('%s.%s: ') % (cls.__module__, cls.__name__) + text


@_seldom
def _frames_of(tb):
    """Return the text of a traceback, or of none."""
    lines = ''.join(_module('traceback').format_tb(tb)) if tb else ''
    return lines if PY3 else UnicodeType(lines, 'utf-8', 'replace')


@_seldom
def _listed(exc, name):
    """Return an attribute of an exception if it is a list or tuple, else an
    empty one."""
    value = getattr(exc, name, ())
    return value if isinstance(value, (list, tuple)) else ()


@_seldom
def _facts_about(exc, text):
    """Yield (key, text) of facts that the text of an exception does not
    tell."""
    number = getattr(exc, 'errno', None)
    if isinstance(number, integer_types) and u'[Errno %d]' % number not in text:
        yield u'errno', u'%d' % number
    for note in _listed(exc, '__notes__'):
        yield u'note', to_text(note)[:_note_max]


@_seldom
def _related(exc):
    """Yield (key, exception) for each exception that belongs to another:
    cause, context, member of a group."""
    if getattr(exc, '__cause__', None) is not None:
        yield u'cause', exc.__cause__
    elif not getattr(exc, '__suppress_context__', True) and exc.__context__ is not None:
        yield u'context', exc.__context__
    for member in _listed(exc, 'exceptions'):
        if isinstance(member, BaseException):
            yield u'member', member


@_seldom
def _entry(key, value):
    """Return the lines of one entry, without bars."""
    lines = value.rstrip(u'\n').split(u'\n')
    return [key + u': ' + lines[0]] + [u'. ' + line for line in lines[1:]]


@_seldom
def _lines_about(exc, text, seen, depth=0):
    """
    Return the lines about an exception, each without its first bar.

    :param text: what is said of it anyway.
    :param list seen: exceptions that are told already; grows.
    """
    lines = []
    for key, value in _facts_about(exc, text):
        lines += _entry(key, value)
    for key, other in _related(exc):
        if any([other is known for known in seen]):
            continue
        if depth == _depth_max or len(seen) > _related_max:
            return lines + _entry(u'left out', u'more')
        seen.append(other)
        text = _text_of(other)[:_text_max]
        frames = _frames_of(getattr(other, '__traceback__', None))
        lines += _entry(key, text + u'\n' + frames[-_frames_max:])
        lines += [u'| ' + line for line in
                  _lines_about(other, text, seen, depth + 1)]
    return lines


@_seldom
def _tell(exc, text):
    """
    Return the lines about an exception, as text that follows on its own.

    :param text: what is said of it anyway.
    """
    try:
        lines = _lines_about(exc, text, [exc])
    except Exception:
        # Its attributes may be anything.
        return u''
    return _within(u''.join([u'\n| ' + line for line in lines]))


@_seldom
def _within(told):
    """Return as many of the lines as fit."""
    if len(told) > _told_max:
        told = told[:_told_max].rpartition(u'\n')[0] + u'\n| left out: more'
    return told


@_seldom
def _split_told(text):
    """Return the text of an error and, from a newline on, the lines about
    it."""
    lines = text.split(u'\n')
    count = len(lines)
    while count > 1 and lines[count - 1][:2] == u'| ':
        count -= 1
    head = u'\n'.join(lines[:count])
    return head, text[len(head):]


@_seldom
def _entries(told):
    """Yield (key, value, the lines about it) of each entry."""
    key = value = below = u''
    for line in told.split(u'\n| ')[1:]:
        if key and line[:2] == u'. ':
            value += u'\n' + line[2:]
        elif key and line[:2] == u'| ':
            below += u'\n' + line
        else:
            if key:
                yield key, value, below
            key, _, value = line.partition(u': ')
            below = u''
    if key:
        yield key, value, below


@_seldom
def _number(text):
    """Return the number that a text is, or None."""
    return int(text) if text.isdigit() and len(text) < 10 else None


@_seldom
def _understand(error, text, depth=0):
    """Set the attributes of a CallError that its text tells of."""
    head, told = _split_told(text)
    name, colon, message = head.partition(u': ')
    if not (colon and u'.' in name and name.replace(u'.', u'').replace(u'_', u'').isalnum()):
        name, message = None, head
    message, newline, frames = message.partition(u'\n  File "')
    error.type, error.message = name, message
    error.traceback = (newline + frames)[1:] or None
    error.notes, error.members = [], []
    if message[:7] == u'[Errno ':
        error.errno = _number(message[7:].partition(u']')[0])
    for key, value, below in _entries(told):
        if key == u'errno':
            error.errno = _number(value)
        elif key == u'note':
            error.notes.append(value)
        elif key in (u'cause', u'context', u'member') and depth < _depth_max:
            other = error.__class__(value + below)
            _understand(other, value + below, depth + 1)
            if key == u'member':
                error.members.append(other)
            else:
                setattr(error, key, other)
