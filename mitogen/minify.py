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
_PLAIN = re.compile(u'[^\'"#()\\[\\]{}\\\\\r\n]*')
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

# What may stand before the quotes of a string that evaluates nothing, and of
# one that does (f-strings, t-strings).
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


class _Minimizer(object):
    """
    One run over one text. Output is collected in `out`; the pieces of the
    logical line being read stay in `line` until it is known whether the line
    is nothing but strings.
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
        # How far continuation lines move to the left.
        shift = pos - start - level

        line = [u' ' * level]
        newlines = []
        blanks = u''
        depth = 0
        strings = 0
        only_strings = True

        while pos < len(text):
            end = _PLAIN.match(text, pos).end()
            if end > pos:
                plain = text[pos:end]
                stripped = plain.rstrip(u' \t\f')
                if stripped:
                    line.append(blanks)
                    line.append(stripped)
                    blanks = plain[len(stripped):]
                    if only_strings and not (
                            text[end:end + 1] in (u'"', u"'")
                            and _PREFIX.match(plain.lstrip(u' \t\f'))):
                        only_strings = False
                else:
                    blanks += plain
                pos = end
                continue

            char = text[pos]
            if char in u'\'"':
                end = _string_end(text, pos)
                piece = text[pos:end]
                for match in _NEWLINE.finditer(piece):
                    self._newline(match, newlines)
                line.append(blanks)
                line.append(piece)
                blanks = u''
                strings += 1
                pos = end
            elif char == u'#':
                end = _COMMENT.match(text, pos).end()
                if self.line_number <= 2:
                    line.append(blanks)
                    line.append(text[pos:end].rstrip())
                blanks = u''
                pos = end
            elif char == u'\\':
                match = _NEWLINE.match(text, pos + 1)
                if match is None:
                    raise _Unreadable()
                line.append(blanks)
                line.append(u'\\')
                self._newline(match, newlines)
                line.append(match.group())
                pos, blanks = self._continue(match.end(), shift)
            elif char in u'\r\n':
                match = _NEWLINE.match(text, pos)
                self._newline(match, newlines)
                if not depth:
                    pos = match.end()
                    break
                line.append(match.group())
                pos, blanks = self._continue(match.end(), shift)
            else:
                only_strings = False
                if char in u'([{':
                    depth += 1
                else:
                    depth -= 1
                    if depth < 0:
                        raise _Unreadable()
                line.append(blanks)
                line.append(char)
                blanks = u''
                pos += 1
        else:
            if depth:
                raise _Unreadable()
            match = None

        block = self.blocks[-1]
        if only_strings and strings:
            if block[1] is None:
                block[1] = len(self.out)
                self.out.append(u'')
            self.out.extend(newlines)
        else:
            block[1] = False
            self.out.extend(line)
            if match is not None:
                self.out.append(match.group())
        return pos

    def _continue(self, pos, shift):
        """
        Return the offset of the first character on a continuation line that
        is no blank, and the blanks to put before it.
        """
        end = _BLANKS.match(self.text, pos).end()
        return end, u' ' * (end - pos - shift)


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


#
# Smaller still, for a text that nobody reads at the other end.
#

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
# Functions that hold one of these look at names, or may.
_LOOKS_AT_NAMES = frozenset(u'exec eval locals vars dir global'.split())
_LETTERS = [first + second for first in u' abcdefghijklmnopqrstuvwxyz'
            for second in u'abcdefghijklmnopqrstuvwxyz']
_LETTERS = [letters.strip() for letters in _LETTERS]
_NO_FUNCTIONS = frozenset(
    u'lambda genexpr listcomp setcomp dictcomp'.split())
_IMPORTS = frozenset([u'import', u'from'])
# Where merging two literals could make a longer escape of two things.
_OPEN_ESCAPE = re.compile(u'\\\\[0-7xuUN][^\\\\]{0,8}$')


class _Line(object):
    """
    A logical line: its level and its tokens, pairs of kind and text.
    """
    def __init__(self, level, tokens):
        self.level = level
        self.tokens = tokens
        self.first = tokens[0][1]

    def is_compound(self):
        return self.first in _COMPOUND


def _tokenize(text):
    """
    Return the `_Line` objects of a text that `minimize_source` made.
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
        end = match.end()
        if kind == 'blank':
            if not tokens and token[0] == u' ':
                level = len(token)
            pos = end
            continue
        if kind == 'newline':
            pos = end
            if not depth:
                if tokens:
                    lines.append(_Line(level, tokens))
                    tokens = []
                level = 0
            continue
        if kind == 'string':
            end = _string_end(text, end - len(token.lstrip(u'bBrRuU')))
            token = text[pos:end]
            if tokens and tokens[-1][0] == 'string':
                before = tokens[-1][1]
                quote = before[0]
                if (quote in u'\'"' and token[0] == quote and
                        before[:3] != quote * 3 and token[:3] != quote * 3 and
                        not _OPEN_ESCAPE.search(before[:-1])):
                    tokens[-1] = kind, before[:-1] + token[1:]
                    pos = end
                    continue
        elif kind == 'op':
            if token in u'([{':
                depth += 1
            elif token in u')]}':
                depth -= 1
        tokens.append((kind, token))
        pos = end
    if tokens:
        lines.append(_Line(level, tokens))
    return lines


def _block_end(lines, start):
    """
    Return the index behind the block whose first line is at `start`.
    """
    level = lines[start].level
    end = start + 1
    while end < len(lines) and lines[end].level >= level:
        end += 1
    return end


def _fold(lines, constants):
    """
    Leave out the branches that a constant rules out.
    """
    out = []
    pos = 0
    while pos < len(lines):
        line = lines[pos]
        tokens = line.tokens
        negated = len(tokens) > 3 and tokens[1][1] == u'not'
        at = 2 if negated else 1
        value = None
        if line.first == u'if' and tokens[-1][1] == u':':
            value = constants.get(tokens[at][1])
        if value is None or tokens[at + 1][1] not in (u':', u'and') or \
                u'or' in [token for _, token in tokens]:
            out.append(line)
            pos += 1
            continue
        value ^= negated
        if tokens[at + 1][1] == u'and' and value:
            del tokens[1:at + 2]
            out.append(line)
            pos += 1
            continue
        end = _block_end(lines, pos + 1)
        blocks = [lines[pos + 1:end], []]
        pos = end
        if pos < len(lines) and lines[pos].level == line.level:
            if lines[pos].first == u'else':
                end = _block_end(lines, pos + 1)
                blocks[1] = lines[pos + 1:end]
                pos = end
            elif lines[pos].first == u'elif':
                raise _Unreadable()
        block = _fold(blocks[not value], constants)
        for inner in block:
            inner.level -= 1
        if not block and (not out or out[-1].level < line.level) and (
                pos == len(lines) or lines[pos].level < line.level):
            block = [_Line(line.level, [('name', u'pass')])]
        out.extend(block)
    return out


def _words(line):
    return [token for _, token in line.tokens]


def _made_line(level, text):
    """
    Return the line that `text`, without strings, is.
    """
    line, = _tokenize(text + u'\n')
    line.level = level
    return line


def _take_block(lines, pos):
    """
    Return the class or function that begins at `pos`, with decorators, and
    the index behind it.
    """
    end = pos
    while lines[end].first == u'@':
        end += 1
    end = _block_end(lines, end + 1)
    return lines[pos:end], end


def _bound_names(lines, level):
    """
    Return what lines of a level bind: classes, functions, variables.
    """
    names = []
    for line in lines:
        words = _words(line)
        if line.level != level or line.first == u'@':
            continue
        if line.first in (u'class', u'def'):
            names.append(words[1])
        else:
            names.extend(word for word in words[:words.index(u'=')]
                         if word != u',')
    return names


#: Begins the part that is fetched, and ends it.
_LATE_BEGIN = u'''
def _mend(cls, part):
    for name, value in list(vars(part).items()):
        if isinstance(vars(cls).get(name), _Late):
            setattr(cls, name, value)
'''
_LATE_END = u'''
_LATE = False
'''


def _divide(lines):
    """
    Return the lines that a child is sent, and those that it may fetch: what
    `mitogen.core` marks by ``@_seldom`` and ``if _SELDOM:``.
    """
    boot, late = [], []
    parts = []
    pos = 0
    while pos < len(lines):
        line = lines[pos]
        words = _words(line)
        if words[:2] == [u'if', u'_SELDOM']:
            end = _block_end(lines, pos + 1)
            block = lines[pos + 1:end]
            for inner in block:
                inner.level -= 1
            pos = end
        elif words == [u'@', u'_seldom']:
            block, pos = _take_block(lines, pos + 1)
        else:
            block = None
        if block and line.level:
            owner = [_words(other)[1] for other in boot if not other.level][-1]
            if not parts or parts[-1][0] != owner:
                parts.append((owner, []))
            parts[-1][1].extend(block)
            for name in _bound_names(block, line.level):
                boot.append(_made_line(line.level, name + u'=_Late()'))
        elif block:
            late.extend(block)
        elif words == [u'_SELDOM', u'=', u'True']:
            boot.append(_made_line(0, u'_SELDOM=False'))
            pos += 1
        else:
            boot.append(line)
            pos += 1

    begin = _tokenize(minimize_source(_LATE_BEGIN))
    for owner, members in parts:
        late.append(_made_line(0, u'class _Part(object):'))
        late.extend(members)
        late.append(_made_line(0, u'_mend(%s,_Part)' % owner))
    return boot, begin + late + _tokenize(_LATE_END)


def _simplify(lines, constants):
    """
    Leave out what says nothing on Python 3.
    """
    for line in lines:
        if constants.get('PY3') and line.first == u'class' and \
                _words(line)[2:5] == [u'(', u'object', u')']:
            del line.tokens[2:5]
    return lines


def _unmark(lines):
    """
    Leave the marks out that `_divide` looks for.
    """
    unmarked = []
    pos = 0
    while pos < len(lines):
        words = _words(lines[pos])
        if words[:2] == [u'if', u'_SELDOM']:
            end = _block_end(lines, pos + 1)
            for line in lines[pos + 1:end]:
                line.level -= 1
        elif words != [u'@', u'_seldom']:
            unmarked.append(lines[pos])
        pos += 1
    return unmarked


def _scopes(table, outermost=None):
    """
    Yield `(first line, tables)` of each function that lies in no other: of
    the function itself and of what lies in it.
    """
    for child in table.get_children():
        if outermost is not None:
            outermost.append(child)
            _deque(_scopes(child, outermost))
        elif child.get_type() == 'function':
            inner = [child]
            _deque(_scopes(child, inner))
            yield child.get_name(), inner
        else:
            for found in _scopes(child):
                yield found


def _deque(iterable):
    for _ in iterable:
        pass


def _local_names(tables, unseen):
    """
    Return which names mean, wherever they stand in a function, something that
    only the function itself can see.

    :param unseen: parameters that no caller names.
    """
    mine, taken = set(), set()
    for table in tables:
        if table.get_type() != 'function':
            return mine - mine
        nested = table is not tables[0]
        mine.update(table.get_locals())
        taken.update(table.get_globals())
        if nested:
            continue
        taken.update(set(table.get_parameters()) - unseen)
    return mine - taken


def _keywords(lines):
    """
    Return the names of all arguments that are given by name.
    """
    names = set()
    for line in lines:
        tokens = line.tokens
        for at, (kind, token) in enumerate(tokens):
            if kind == 'name' and at and tokens[at - 1][1] in u'(,' and \
                    line.first != u'def' and _is_keyword(tokens, at):
                names.add(token)
    return names


def _unseen_parameters(tokens, keywords):
    """
    Return the parameters of a function that no caller gives by name.
    """
    names = set([u'self', u'cls'])
    private = re.match(u'_[^_]', tokens[1][1])
    for at, (kind, token) in enumerate(tokens):
        if kind == 'name' and at > 1 and (
                private or tokens[at - 1][1] == u'*'):
            names.add(token)
    return names - keywords


def _rename(lines, names):
    """
    Give short names to some local names of a function.
    """
    used = set()
    order = []
    for line in lines:
        depth = 0
        tokens = line.tokens
        for at, (kind, token) in enumerate(tokens):
            if kind == 'op':
                depth += (token in u'([{') - (token in u')]}')
            elif kind == 'name':
                if token in _LOOKS_AT_NAMES:
                    return
                if at and tokens[at - 1][1] == u'.':
                    continue
                if token not in used:
                    used.add(token)
                    order.append(token)
                if line.first in _IMPORTS or (
                        depth and _is_keyword(tokens, at)):
                    # An argument by name, perhaps: nothing to be touched.
                    names.discard(token)
    letters = iter([name for name in _LETTERS if name not in used])
    short = {}
    if u'self' in names and u'S' not in used:
        # The same everywhere, which compresses well.
        short[u'self'] = u'S'
    for name in order:
        if name in names and name not in short and len(name) > 1:
            short[name] = next(letters)
    for line in lines:
        tokens = line.tokens
        for at, (kind, token) in enumerate(tokens):
            # The name of the function itself belongs to others.
            if kind == 'name' and token in short and not (
                    at and tokens[at - 1][1] == u'.' or
                    at == 1 and line is lines[0]):
                tokens[at] = kind, short[token]


def _is_keyword(tokens, at):
    return (at + 2 < len(tokens) and tokens[at + 1][1] == u'=' and
            tokens[at + 2][1] != u'=')


def _join(tokens):
    """
    Return tokens as text, with blanks only where there must be some.
    """
    out = []
    before = None
    for kind, token in tokens:
        if before == 'number' and (kind != 'op' or token == u'.'):
            out.append(u' ')
        elif before == 'name' and kind in ('name', 'number'):
            out.append(u' ')
        elif before == 'string' and kind == 'string':
            out.append(u' ')
        elif before == 'name' and kind == 'string' and \
                token[0] not in u'\'"':
            out.append(u' ')
        out.append(token)
        before = kind
    return u''.join(out)


def _lay_out(lines):
    """
    Return the text of lines, as few as can be.
    """
    out = []
    # Level of the statement that the text so far ends with, if another one
    # can stand behind it; level of the line it is on.
    open_level = None
    block = None
    for at, line in enumerate(lines):
        text = _join(line.tokens)
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


def _is_flat(lines, start):
    """
    Tell whether a block holds simple statements only.
    """
    level = lines[start].level
    for line in lines[start:]:
        if line.level < level:
            break
        if line.level > level or line.is_compound():
            return False
    return True


def _shorten(lines, keywords):
    """
    Return the text of lines, with short names for what is local.

    :param keywords: names that arguments are given by.
    """
    import symtable
    table = symtable.symtable(str(_lay_out(lines)), 'source', 'exec')
    pos = 0
    for name, tables in _scopes(table):
        if name in _NO_FUNCTIONS:
            continue
        while lines[pos].first != u'def' or lines[pos].tokens[1][1] != name:
            pos += 1
        level = lines[pos].level
        end = pos + 1
        while end < len(lines) and lines[end].level > level:
            end += 1
        _rename(lines[pos:end], _local_names(
            tables, _unseen_parameters(lines[pos].tokens, keywords)))
        pos = end
    return _lay_out(lines)


def shrink_source(source, constants):
    """
    Make Python source as small as it gets while every name that can be seen
    from outside of a function stays: names of what is local to a function
    become letters, lines are joined, and branches left out.

    Only for source that runs on every supported Python, holds no string that
    evaluates anything, and does not look into its own frames.

    :param dict constants: name -> bool. Statements ``if NAME:`` and
        ``if not NAME:`` are decided, and those that go on with ``and``.
    :returns: text; what cannot be shrunk is only minimized.
    """
    text = minimize_source(source, fill=True)
    try:
        lines = _unmark(_fold(_tokenize(text), constants))
        _simplify(lines, constants)
        return _shorten(lines, _keywords(lines))
    except _Unreadable:
        return text


def divide_source(source, constants):
    """
    Like :func:`shrink_source`, for the source of `mitogen.core`, which marks
    what is seldom used.

    :returns: (text without that, text that adds it); None in place of the
        second if the source cannot be divided.
    """
    text = minimize_source(source, fill=True)
    try:
        lines = _simplify(_fold(_tokenize(text), constants), constants)
        keywords = _keywords(lines)
        boot, late = _divide(lines)
        return _shorten(boot, keywords), _shorten(late, keywords)
    except _Unreadable:
        return text, None
