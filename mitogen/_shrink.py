# SPDX-License-Identifier: BSD-3-Clause
"""
Make the source of the core as small as it gets, for a child that has to be
sent it. A master alone does this, once for each kind of child.

The text goes through these steps: `minimize_source` takes comments and
docstrings out, `tokenize` makes lines of tokens, `_fold` drops branches that
the kind of child rules out, `_divide` moves what is seldom used into a second
text, `_shorten` gives local names one letter, and `lay_out` writes the lines
down. A child never runs this module, so children are not told of it.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import re

from mitogen._tokens import block_end
from mitogen._tokens import lay_out
from mitogen._tokens import made_line
from mitogen._tokens import outdent
from mitogen._tokens import take_body
from mitogen._tokens import tokenize
from mitogen.minify import _Unreadable
from mitogen.minify import minimize_source


# A function that mentions one of these may look up its locals by name.
_LOOKS_AT_NAMES = frozenset(u'exec eval locals vars dir global'.split())
_LETTERS = [(first + second).strip()
            for first in u' abcdefghijklmnopqrstuvwxyz'
            for second in u'abcdefghijklmnopqrstuvwxyz']
# Names of symbol tables of type 'function' that no `def` statement made.
_NO_FUNCTIONS = frozenset(
    u'lambda genexpr listcomp setcomp dictcomp'.split())
_IMPORTS = frozenset([u'import', u'from'])

#: Begins the text that is fetched later, and ends it.
_LATE_BEGIN = u'''
def _mend(cls, part):
    for name, value in list(vars(part).items()):
        if isinstance(vars(cls).get(name), _Late):
            setattr(cls, name, value)
'''
_LATE_END = u'''
_LATE = False
'''


#
# Branches.
#

def _decision(line, constants):
    """
    Tell how the constants decide an ``if``.

    :returns:
        `(value, index of the token behind the constant)`. The value is
        :data:`None` if nothing is decided, else whether the condition, as far
        as that token, is true.
    """
    tokens = line.tokens
    negated = len(tokens) > 3 and tokens[1][1] == u'not'
    at = 2 if negated else 1
    value = None
    if line.first == u'if' and tokens[-1][1] == u':':
        value = constants.get(tokens[at][1])
    if value is None or tokens[at + 1][1] not in (u':', u'and') or \
            u'or' in line.words():
        return None, None
    return value ^ negated, at + 1


def _branches(lines, pos):
    """
    Return the two bodies of the ``if`` at `pos`, and the index behind them.
    The second body is empty if there is no ``else``.

    :raises _Unreadable:
        There is an ``elif``.
    """
    level = lines[pos].level
    body, end = take_body(lines, pos)
    other = []
    if end < len(lines) and lines[end].level == level:
        if lines[end].first == u'elif':
            raise _Unreadable()
        if lines[end].first == u'else':
            other, end = take_body(lines, end)
    return body, other, end


def _fold(lines, constants):
    """
    Return the lines without the branches that a constant rules out.
    """
    out = []
    pos = 0
    while pos < len(lines):
        line = lines[pos]
        value, at = _decision(line, constants)
        if value and line.tokens[at][1] == u'and':
            # The rest of the condition decides.
            del line.tokens[1:at + 1]
            value = None
        if value is None:
            out.append(line)
            pos += 1
            continue
        body, other, pos = _branches(lines, pos)
        block = outdent(_fold(body if value else other, constants))
        if not block and (not out or out[-1].level < line.level) and (
                pos == len(lines) or lines[pos].level < line.level):
            # The block around the statement would be left with nothing.
            block = [made_line(line.level, u'pass')]
        out.extend(block)
    return out


def _drop_object_bases(lines, constants):
    """
    Make ``class A(object):`` into ``class A:`` in a text for Python 3, where
    both mean the same.
    """
    for line in lines:
        if constants.get('PY3') and line.first == u'class' and \
                line.words()[2:5] == [u'(', u'object', u')']:
            del line.tokens[2:5]


def _drop_choice(lines):
    """
    Return the lines without the mark of a class that there is twice: only
    the pure core is sent.
    """
    return [line for line in lines if line.words() != [u'@', u'_chosen']]


#
# The parts that are seldom used. `mitogen.core` marks them by ``@_seldom`` and
# ``if _SELDOM:``.
#

def _is_seldom_block(line):
    return line.words()[:2] == [u'if', u'_SELDOM']


def _is_seldom_mark(line):
    return line.words() == [u'@', u'_seldom']


def _unmark(lines):
    """
    Return the lines without those marks: whatever is marked stays in place.
    """
    unmarked = []
    for pos, line in enumerate(lines):
        if _is_seldom_block(line):
            outdent(take_body(lines, pos)[0])
        elif not _is_seldom_mark(line):
            unmarked.append(line)
    return unmarked


def _take_block(lines, pos):
    """
    Return the class or function that begins at `pos`, with its decorators,
    and the index behind it.
    """
    end = pos
    while lines[end].first == u'@':
        end += 1
    end = block_end(lines, end + 1)
    return lines[pos:end], end


def _take_seldom(lines, pos):
    """
    Return the lines that a mark at `pos` belongs to, and the index behind
    them. Without a mark there, return :data:`None` and `pos`.
    """
    if _is_seldom_block(lines[pos]):
        block, pos = take_body(lines, pos)
        return outdent(block), pos
    if _is_seldom_mark(lines[pos]):
        return _take_block(lines, pos + 1)
    return None, pos


def _bound_names(lines, level):
    """
    Return the names of classes, functions and variables that the lines of one
    level bind.
    """
    names = []
    for line in lines:
        words = line.words()
        if line.level != level or line.first == u'@':
            continue
        if line.first in (u'class', u'def'):
            names.append(words[1])
        else:
            names.extend(word for word in words[:words.index(u'=')]
                         if word != u',')
    return names


class _Division(object):
    """
    The lines that a child is sent (`boot`), those that it may fetch (`late`),
    and members of classes among the latter (`parts`): pairs of the name of a
    class and lines.
    """
    def __init__(self):
        self.boot = []
        self.late = []
        self.parts = []

    def add_members(self, block, level):
        """
        Put members of the class that is being read off till later. The class
        gets a stand-in for each.
        """
        owner = [line.words()[1] for line in self.boot if not line.level][-1]
        if not self.parts or self.parts[-1][0] != owner:
            self.parts.append((owner, []))
        self.parts[-1][1].extend(block)
        for name in _bound_names(block, level):
            self.boot.append(made_line(level, name + u'=_Late()'))

    def late_lines(self):
        """
        Return all lines of the text that is fetched.
        """
        lines = tokenize(minimize_source(_LATE_BEGIN)) + self.late
        for owner, members in self.parts:
            lines.append(made_line(0, u'class _Part(object):'))
            lines.extend(members)
            lines.append(made_line(0, u'_mend(%s,_Part)' % owner))
        return lines + tokenize(_LATE_END)


def _divide(lines):
    """
    Return the lines that a child is sent, and those that it may fetch.
    """
    division = _Division()
    pos = 0
    while pos < len(lines):
        line = lines[pos]
        block, pos = _take_seldom(lines, pos)
        if block and line.level:
            division.add_members(block, line.level)
        elif block:
            division.late.extend(block)
        else:
            if line.words() == [u'_SELDOM', u'=', u'True']:
                line = made_line(0, u'_SELDOM=False')
            division.boot.append(line)
            pos += 1
    return division.boot, division.late_lines()


#
# Names.
#

def _add_tables(table, tables):
    """
    Append the symbol tables of everything that lies in `table` to a list.
    """
    for child in table.get_children():
        # Python 3.14 has a table for annotations wherever there may be some.
        if child.get_type() != 'annotation':
            tables.append(child)
            _add_tables(child, tables)


def _outer_functions(table):
    """
    Yield `(name, symbol tables)` of each function that lies in no other. The
    first table is the one of the function itself, the rest belong to the
    scopes within it.
    """
    for child in table.get_children():
        if child.get_type() == 'function':
            tables = [child]
            _add_tables(child, tables)
            yield child.get_name(), tables
        else:
            for found in _outer_functions(child):
                yield found


def _local_names(tables, unseen):
    """
    Return the names of a function that, in every place within it, mean a
    variable of the function itself.

    :param tables: as of :func:`_outer_functions`.
    :param unseen: parameters that no caller names.
    """
    mine, taken = set(), set()
    for table in tables:
        if table.get_type() != 'function':
            # A class in a function: its attributes can be seen.
            return set()
        mine.update(table.get_locals())
        taken.update(table.get_globals())
    taken.update(set(tables[0].get_parameters()) - unseen)
    return mine - taken


def _is_keyword(tokens, at):
    """
    Tell whether a single ``=`` follows the token at index `at`.
    """
    return (at + 2 < len(tokens) and tokens[at + 1][1] == u'=' and
            tokens[at + 2][1] != u'=')


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

    :param tokens: of the line of its ``def``.
    :param keywords: names that arguments are given by.
    """
    names = set([u'self', u'cls'])
    private = re.match(u'_[^_]', tokens[1][1])
    for at, (kind, token) in enumerate(tokens):
        if kind == 'name' and at > 1 and (
                private or tokens[at - 1][1] == u'*'):
            names.add(token)
    return names - keywords


def _used_names(lines, names):
    """
    Return the names in a function that are no attributes, in the order of
    their first use, or :data:`None` if the function may look at names. Take
    those out of `names` that may name an argument of another function, or a
    module.
    """
    order = []
    for line in lines:
        depth = 0
        tokens = line.tokens
        for at, (kind, token) in enumerate(tokens):
            if kind == 'op':
                depth += (token in u'([{') - (token in u')]}')
            elif kind == 'name':
                if token in _LOOKS_AT_NAMES:
                    return None
                if at and tokens[at - 1][1] == u'.':
                    continue
                order.append(token)
                if line.first in _IMPORTS or (
                        depth and _is_keyword(tokens, at)):
                    names.discard(token)
    return order


def _short_names(names, order):
    """
    Return a dict of the short names for `names`, a subset of `order`.
    """
    used = set(order)
    letters = iter([letter for letter in _LETTERS if letter not in used])
    short = {}
    if u'self' in names and u'S' not in used:
        # One name in all functions compresses well.
        short[u'self'] = u'S'
    for name in order:
        if name in names and name not in short and len(name) > 1:
            short[name] = next(letters)
    return short


def _rename(lines, names):
    """
    Give short names to some local names of a function.
    """
    order = _used_names(lines, names)
    if order is None:
        return
    short = _short_names(names, order)
    for line in lines:
        tokens = line.tokens
        for at, (kind, token) in enumerate(tokens):
            # The name of the function itself belongs to its callers.
            if kind == 'name' and token in short and not (
                    at and tokens[at - 1][1] == u'.' or
                    at == 1 and line is lines[0]):
                tokens[at] = kind, short[token]


def _shorten(lines, keywords):
    """
    Return the text of lines, with short names for whatever is local.

    :param keywords: names that arguments are given by.
    """
    import symtable
    table = symtable.symtable(str(lay_out(lines)), 'source', 'exec')
    pos = 0
    for name, tables in _outer_functions(table):
        # Since Python 3.15 they have the names of code objects: <lambda>.
        if name.strip('<>') in _NO_FUNCTIONS:
            continue
        while lines[pos].first != u'def' or lines[pos].tokens[1][1] != name:
            pos += 1
        unseen = _unseen_parameters(lines[pos].tokens, keywords)
        end = block_end(lines, pos + 1)
        _rename(lines[pos:end], _local_names(tables, unseen))
        pos = end
    return lay_out(lines)


#
# All steps.
#

def _read(source, constants):
    """
    Return the minimized text of a source, and its lines without the branches
    that the constants rule out. The lines are :data:`None` if the text cannot
    be read.
    """
    text = minimize_source(source, fill=True)
    try:
        lines = _fold(tokenize(text), constants)
    except _Unreadable:
        return text, None
    _drop_object_bases(lines, constants)
    return text, _drop_choice(lines)


def shrink_source(source, constants):
    """
    Make Python source as small as it gets while every name that can be seen
    from outside of a function stays: names of what is local to a function
    become letters, lines are joined, and branches left out.

    Only for source that runs on every supported Python, holds no string that
    evaluates anything, and does not look into its own frames.

    :param source:
        Text, or bytes in UTF-8.
    :param dict constants: name -> bool. Statements ``if NAME:`` and
        ``if not NAME:`` are decided, and those that go on with ``and``.
    :returns: text; a source that cannot be shrunk is only minimized.
    """
    text, lines = _read(source, constants)
    if lines is None:
        return text
    lines = _unmark(lines)
    return _shorten(lines, _keywords(lines))


def divide_source(source, constants):
    """
    Like :func:`shrink_source`, for the source of `mitogen.core`, which marks
    the parts that are seldom used.

    :returns: (text without those parts, text that adds them); None in place
        of the second if the source cannot be divided.
    """
    text, lines = _read(source, constants)
    if lines is None:
        return text, None
    keywords = _keywords(lines)
    boot, late = _divide(lines)
    return _shorten(boot, keywords), _shorten(late, keywords)
