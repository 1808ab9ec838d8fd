# SPDX-License-Identifier: BSD-3-Clause
"""
Make Python source smaller without moving anything to another line.

The scanner here knows only as much of the grammar as it needs: strings,
comments, brackets and line ends. So it does the same on every Python, loads
nothing, and is several times faster than :mod:`tokenize`, which matters since
a master runs it while its first child waits to be sent the core.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import re


# Up to the next character that can change what follows.
_PLAIN = re.compile(u'[^\'"#\\\\\r\n]*')
_BRACKET = re.compile(u'[()\\[\\]{}]')
_BLANKS = re.compile(u'[ \t\f]*')
_NEWLINE = re.compile(u'\r\n|\r|\n')
_COMMENT = re.compile(u'#[^\r\n]*')

# From behind the opening quotes up to and including the closing ones. Raw
# strings need no pattern of their own: there too a backslash keeps the quote
# behind it from closing the string.
_STRING_END = {
    u"'": re.compile(u"[^\\\\'\r\n]*(?:\\\\(?:\r\n|[\\s\\S])"
                     u"[^\\\\'\r\n]*)*'"),
    u'"': re.compile(u'[^\\\\"\r\n]*(?:\\\\(?:\r\n|[\\s\\S])'
                     u'[^\\\\"\r\n]*)*"'),
    u"'''": re.compile(u"[^\\\\']*(?:(?:\\\\[\\s\\S]|'(?!''))"
                       u"[^\\\\']*)*'''"),
    u'"""': re.compile(u'[^\\\\"]*(?:(?:\\\\[\\s\\S]|"(?!""))'
                       u'[^\\\\"]*)*"""'),
}

# Prefixes of a string that evaluates nothing, and of one that does (f-strings,
# t-strings).
_PREFIX = re.compile(u'(?:[bB][rR]?|[rR][bB]?|[uU][rR]?)$')
_FORMAT_PREFIX = re.compile(u'(?:^|[^0-9A-Za-z_])(?:[fFtT][rR]?|[rR][fFtT])$')

_FIELD_STOP = re.compile(u'[\'"#()\\[\\]{}:]')
_CODING = re.compile(br'^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)')


class _Unreadable(Exception):
    """
    The text is not Python, as far as the scanner can tell.
    """
    pass


def _quotes_at(text, pos):
    """
    Return the opening quotes that stand at `pos`: one or three characters.
    """
    if text.startswith(text[pos] * 3, pos):
        return text[pos] * 3
    return text[pos]


def _string_end(text, pos):
    """
    Return the offset behind the string whose opening quotes are at `pos`.
    """
    quotes = _quotes_at(text, pos)
    before = text[max(0, pos - 3):pos]
    if _FORMAT_PREFIX.search(before):
        return _format_string_end(text, pos + len(quotes), quotes,
                                  u'r' in before[-2:].lower())
    match = _STRING_END[quotes].match(text, pos + len(quotes))
    if match is None:
        raise _Unreadable()
    return match.end()


def _format_string_end(text, pos, quotes, raw):
    """
    Return the offset behind a format string whose text begins at `pos`. Since
    Python 3.12 its fields may hold anything, strings with the same quotes and
    comments included.
    """
    size = len(text)
    while pos < size:
        char = text[pos]
        if char == u'\\':
            if text.startswith(u'\\N{', pos) and not raw:
                pos = text.find(u'}', pos) + 1
                if not pos:
                    raise _Unreadable()
            elif text.startswith(u'\\{', pos):
                pos += 1
            else:
                pos += 2
        elif char == u'{':
            if text.startswith(u'{{', pos):
                pos += 2
            else:
                pos = _field_end(text, pos + 1, quotes)
        elif text.startswith(quotes, pos):
            return pos + len(quotes)
        elif char in u'\r\n' and len(quotes) == 1:
            raise _Unreadable()
        else:
            pos += 1
    raise _Unreadable()


def _field_end(text, pos, quotes):
    """
    Return the offset behind the closing brace of the replacement field whose
    expression begins at `pos`.
    """
    depth = 0
    while True:
        match = _FIELD_STOP.search(text, pos)
        if match is None:
            raise _Unreadable()
        char = match.group()
        pos = match.end()
        if char in u'\'"':
            pos = _string_end(text, pos - 1)
        elif char == u'#':
            pos = _COMMENT.match(text, pos - 1).end()
        elif char in u'([{':
            depth += 1
        elif char == u':':
            if not depth:
                return _format_spec_end(text, pos, quotes)
        elif depth:
            depth -= 1
        elif char == u'}':
            return pos
        else:
            raise _Unreadable()


def _format_spec_end(text, pos, quotes):
    """
    Return the offset behind the field whose format specification begins at
    `pos`. It is literal text, except for fields nested in it.
    """
    while pos < len(text):
        char = text[pos]
        pos += 1
        if char == u'{':
            pos = _field_end(text, pos, quotes)
        elif char == u'}':
            return pos
        elif text.startswith(quotes, pos - 1):
            break
    raise _Unreadable()


def _column(blanks):
    """
    Return the column that leading blanks reach, by the compiler's rules.
    """
    column = 0
    for char in blanks:
        if char == u' ':
            column += 1
        elif char == u'\t':
            column = (column // 8 + 1) * 8
        else:
            column = 0
    return column


class _LogicalLine(object):
    """
    The logical line that is being read. Its text is collected in `out`.

    :param int level: of indentation.
    :param int shift: how many columns continuation lines move to the left.
    """
    def __init__(self, level, shift):
        self.shift = shift
        self.out = [u' ' * level]
        #: The line ends in it, for a line that is left out.
        self.newlines = []
        #: Blanks that have been read. They are dropped at the end of a line.
        self.blanks = u''
        #: How many brackets are open.
        self.depth = 0
        self.has_string = False
        self.has_code = False

    def add(self, piece):
        """
        Append a piece that does not begin with blanks.
        """
        self.out += (self.blanks, piece)
        self.blanks = u''

    def add_plain(self, plain, before_string):
        """
        Append text without strings, comments and line ends.

        :param bool before_string:
            Whether a string follows at once, so that this may belong to it.
        """
        stripped = plain.rstrip(u' \t\f')
        if not stripped:
            self.blanks += plain
            return
        if not before_string or not _PREFIX.match(plain.lstrip(u' \t\f')):
            self.has_code = True
        for bracket in _BRACKET.findall(stripped):
            self.depth += 1 if bracket in u'([{' else -1
            if self.depth < 0:
                raise _Unreadable()
        self.add(stripped)
        self.blanks = plain[len(stripped):]

    def is_only_strings(self):
        return self.has_string and not self.has_code


class _Minimizer(object):
    """
    One run over one text. Output is collected in `out`.
    """
    def __init__(self, text, fill):
        self.text = text
        self.fill = fill
        self.out = []
        self.line_number = 1
        #: One `[column, hole]` per open block. `hole` is False once the block
        #: has a statement that stays, else None, or the index in `out` at
        #: which ``pass`` would have to stand.
        self.blocks = [[0, False]]

    def run(self):
        pos = 0
        while pos < len(self.text):
            pos = self._blank_line(pos)
            if pos is None:
                break
            pos = self._logical_line(pos)
        self._close_blocks(0)
        return u''.join(self.out)

    def _newline(self, match, out):
        out.append(match.group())
        self.line_number += 1
        return match.end()

    def _blank_line(self, pos):
        """
        Copy lines that hold only blanks and comments. Return the offset of
        the first line that holds more, or None at the end of the text.
        """
        text = self.text
        while pos < len(text):
            code = _BLANKS.match(text, pos).end()
            comment = _COMMENT.match(text, code)
            end = comment.end() if comment else code
            newline = _NEWLINE.match(text, end)
            if newline is None and end < len(text):
                return pos
            if comment and self.line_number <= 2:
                self.out.append(text[pos:end].rstrip())
            if newline is None:
                return None
            pos = self._newline(newline, self.out)
        return None

    def _close_blocks(self, column):
        while len(self.blocks) > 1 and self.blocks[-1][0] > column:
            hole = self.blocks.pop()[1]
            if hole and self.fill:
                self.out[hole] = u' ' * len(self.blocks) + u'pass'

    def _indent(self, blanks):
        """
        Note where a logical line starts, return its level.
        """
        column = _column(blanks)
        self._close_blocks(column)
        if column > self.blocks[-1][0]:
            self.blocks.append([column, None])
        return len(self.blocks) - 1

    def _logical_line(self, pos):
        """
        Copy one logical line, return the offset behind it.
        """
        text = self.text
        start = pos
        pos = _BLANKS.match(text, pos).end()
        level = self._indent(text[start:pos])
        line = _LogicalLine(level, pos - start - level)
        newline = None
        while pos < len(text):
            end = _PLAIN.match(text, pos).end()
            if end > pos:
                line.add_plain(text[pos:end], text[end:end + 1] in (u'"', u"'"))
                pos = end
                continue
            char = text[pos]
            if char in u'\r\n' and not line.depth:
                newline = _NEWLINE.match(text, pos)
                pos = self._newline(newline, line.newlines)
                break
            pos = self._piece(line, char, pos)
        if line.depth:
            raise _Unreadable()
        self._end_line(line, newline)
        return pos

    def _piece(self, line, char, pos):
        """
        Copy a piece of a logical line: a string, a comment, or a line end
        within the line. Return the offset behind the piece.
        """
        text = self.text
        if char in u'\'"':
            end = _string_end(text, pos)
            piece = text[pos:end]
            for match in _NEWLINE.finditer(piece):
                self._newline(match, line.newlines)
            line.add(piece)
            line.has_string = True
            return end
        if char == u'#':
            end = _COMMENT.match(text, pos).end()
            if self.line_number <= 2:
                line.add(text[pos:end].rstrip())
            line.blanks = u''
            return end
        if char == u'\\':
            line.add(u'\\')
            return self._continue(line, pos + 1)
        return self._continue(line, pos)

    def _continue(self, line, pos):
        """
        Go on to the next line of the same logical line. Return the offset of
        the first character there that is no blank.
        """
        match = _NEWLINE.match(self.text, pos)
        if match is None:
            raise _Unreadable()
        pos = self._newline(match, line.newlines)
        line.out.append(match.group())
        end = _BLANKS.match(self.text, pos).end()
        line.blanks = u' ' * (end - pos - line.shift)
        return end

    def _end_line(self, line, newline):
        """
        Write a logical line down, or leave it out if it is nothing but
        strings. `newline` is the match of the line end behind it, if any.
        """
        block = self.blocks[-1]
        if line.is_only_strings():
            if block[1] is None:
                block[1] = len(self.out)
                self.out.append(u'')
            self.out.extend(line.newlines)
            return
        block[1] = False
        self.out.extend(line.out)
        if newline is not None:
            self.out.append(newline.group())


def _decode(source):
    """
    Return `source` as text, without a byte order mark.
    """
    text = source
    if isinstance(source, bytes):
        try:
            text = source.decode('utf-8')
        except UnicodeDecodeError:
            for line in source.splitlines()[:2]:
                match = _CODING.match(line)
                if match:
                    text = source.decode(match.group(1).decode('ascii'))
                    break
            else:
                raise
    if text.startswith(u'\ufeff'):
        text = text[1:]
    return text


def minimize_source(source, fill=False):
    """
    Remove comments, docstrings and needless blanks from Python source. The
    number of lines stays, and every statement stays on its line, so that
    tracebacks remain right. Comments on the first two lines stay, since they
    may be a hashbang and an encoding.

    :param source:
        Text, or bytes in UTF-8 (or in the encoding they declare).
    :param bool fill:
        If :data:`True`, a block that holds nothing but a docstring is given a
        ``pass``. Otherwise it is left empty, which is not valid Python.
    :returns:
        Text. Input that is not Python comes back as it is, decoded.
    :raises UnicodeDecodeError:
        `source` is bytes, neither UTF-8 nor what it declares to be.

    May be called from any thread.
    """
    text = _decode(source)
    try:
        return _Minimizer(text, fill).run()
    except _Unreadable:
        return text
