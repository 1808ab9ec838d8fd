# SPDX-License-Identifier: BSD-3-Clause
"""
Python source as lines of tokens: how they are read, walked over, and written
down again. :mod:`mitogen._shrink` works on them.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import re

from mitogen.minify import _string_end
from mitogen.minify import _Unreadable


_TOKEN = re.compile(
    u'(?P<blank>[ \t\f]+|\\\\\n|#[^\n]*)|'
    u'(?P<string>(?:[bB][rR]?|[rR][bB]?|[uU][rR]?)?'
    u'(?:\'\'\'|"""|\'|"))|'
    u'(?P<name>[A-Za-z_][A-Za-z_0-9]*)|'
    u'(?P<number>[0-9](?:[eE][+-]|[A-Za-z_0-9.])*)|'
    u'(?P<newline>\n)|'
    u'(?P<op>[^\\s#$?`\\\\])')

_COMPOUND = frozenset(
    u'if elif else for while try except finally with def class @'.split())
# A literal that ends in an escape which the next literal could extend.
_OPEN_ESCAPE = re.compile(u'\\\\[0-7xuUN][^\\\\]{0,8}$')


class Line(object):
    """
    A logical line: its level of indentation, and its tokens, which are pairs
    `(kind, text)`. A kind is the name of a group of `_TOKEN`.
    """
    def __init__(self, level, tokens):
        self.level = level
        self.tokens = tokens
        self.first = tokens[0][1]

    def is_compound(self):
        return self.first in _COMPOUND

    def words(self):
        """
        Return the texts of all tokens.
        """
        return [token for _, token in self.tokens]


def _can_merge(before, token):
    """
    Tell whether two string literals, one behind the other, can become one.
    """
    quote = before[0]
    return (
        quote in u'\'"' and token[0] == quote
        and before[:3] != quote * 3 and token[:3] != quote * 3
        and not _OPEN_ESCAPE.search(before[:-1])
    )


def _add_string(tokens, token):
    """
    Append a string literal to the tokens of a line, or merge it with the
    literal that they end with.
    """
    if tokens and tokens[-1][0] == 'string' and \
            _can_merge(tokens[-1][1], token):
        token = tokens.pop()[1][:-1] + token[1:]
    tokens.append(('string', token))


def tokenize(text):
    """
    Return the list of `Line` that a text, made by `minimize_source`, holds.

    :raises _Unreadable:
        The text is not Python, as far as `_TOKEN` can tell.
    """
    lines = []
    tokens = []
    level = depth = pos = 0
    size = len(text)
    match_at = _TOKEN.match
    while pos < size:
        match = match_at(text, pos)
        if match is None:
            raise _Unreadable()
        kind = match.lastgroup
        token = match.group()
        pos = match.end()
        if kind == 'blank':
            if not tokens and token[0] == u' ':
                level = len(token)
        elif kind == 'newline':
            if not depth:
                if tokens:
                    lines.append(Line(level, tokens))
                    tokens = []
                level = 0
        elif kind == 'string':
            start = match.start()
            pos = _string_end(text, pos - len(token.lstrip(u'bBrRuU')))
            _add_string(tokens, text[start:pos])
        else:
            if kind == 'op':
                depth += (token in u'([{') - (token in u')]}')
            tokens.append((kind, token))
    if tokens:
        lines.append(Line(level, tokens))
    return lines


def made_line(level, text):
    """
    Return a `Line` for `text`, which may hold no string literal.
    """
    line, = tokenize(text + u'\n')
    line.level = level
    return line


def block_end(lines, start):
    """
    Return the index behind the block whose first line is at `start`.
    """
    level = lines[start].level
    end = start + 1
    while end < len(lines) and lines[end].level >= level:
        end += 1
    return end


def take_body(lines, pos):
    """
    Return the lines below the compound statement at `pos`, and the index
    behind them.
    """
    end = block_end(lines, pos + 1)
    return lines[pos + 1:end], end


def outdent(lines):
    """
    Move lines one level to the left, and return them.
    """
    for line in lines:
        line.level -= 1
    return lines


def _needs_blank(before, kind, token):
    """
    Tell whether a blank must stand between a token of kind `before` and the
    next one.
    """
    if before == 'number':
        return kind != 'op' or token == u'.'
    if before == 'name':
        return kind in ('name', 'number') or (
            kind == 'string' and token[0] not in u'\'"')
    return before == kind == 'string'


def join(tokens):
    """
    Return tokens as text, with blanks only where there must be some.
    """
    out = []
    before = None
    for kind, token in tokens:
        if _needs_blank(before, kind, token):
            out.append(u' ')
        out.append(token)
        before = kind
    return u''.join(out)


def _is_flat(lines, start):
    """
    Tell whether the block that begins at `start` has simple statements only.
    """
    level = lines[start].level
    for line in lines[start:]:
        if line.level < level:
            break
        if line.level > level or line.is_compound():
            return False
    return True


def lay_out(lines):
    """
    Return the text of lines, as few lines as can be.
    """
    out = []
    # Level of the statement that the text so far ends with, if another one
    # can stand behind it; level of the block that the text so far opens.
    open_level = None
    block = None
    for at, line in enumerate(lines):
        text = join(line.tokens)
        compound = line.is_compound()
        if not compound and open_level == line.level:
            out.append(u';' + text)
        elif not compound and block == line.level and _is_flat(lines, at):
            out.append(text)
            open_level = line.level
        else:
            out.append(u'\n' + u' ' * line.level + text)
            open_level = None if compound else line.level
        block = line.level + 1 if compound and line.first != u'@' else None
    return u''.join(out).lstrip(u'\n') + u'\n'
