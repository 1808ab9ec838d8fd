#!/usr/bin/env python3
"""
Checks the words of docs, READMEs, comments, docstrings and longer texts in the source: file:line:
rule: text.

Nothing here judges style. Each rule refuses one habit that made readers ask "who?" or "what?":
docs/glossary.rst has the words to use instead.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

MAX_COLUMNS = 100

#: Data of tests, the test of this program, and pages that a program writes.
LEFT_OUT = ('tests/data/', 'tests/fuzz/corpus/', 'tests/docs/test_words.py', 'docs/benchmarks/')

PYTHON = re.compile(
    r'''(?P<doc>(?:\b[rRbBuU]{1,2})?(?:"""(?:[^\\]|\\.)*?"""|\'\'\'(?:[^\\]|\\.)*?\'\'\'))'''
    r'''|(?P<string>(?:\b[rRbBuUfF]{1,2})?(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))'''
    r'''|(?P<comment>\#[^\n]*)''', re.S)
C = re.compile(
    r'''(?P<doc>/\*.*?\*/)|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')'''
    r'''|(?P<comment>//[^\n]*)''', re.S)
SHELL = re.compile(r'''(?P<doc>(?!))|(?P<string>(?!))|(?P<comment>(?:^|(?<=[ \t]))\#[^\n]*)''', re.M)
PARAGRAPH = re.compile(r'(?:^[^\n]*\S[^\n]*\n?)+', re.M)

#: A sentence begins here: at the beginning of a paragraph, of an item of a list, or after a full
#: stop.
BEGIN = r'(?:^|(?<=[.!?] )|(?<=[.!?]\) ))'
#: A part of a sentence begins here.
CLAUSE = r'(?:(?<=[;:] )|(?<=: \w ))'

#: Cells of tables may say "the answer, or what failed": they are no sentences.
IN_CLAUSE = re.compile(CLAUSE + r'(?:[Ww]hat|[Ww]ho|[Ww]hoever|Whatever)\b(?![^.!?]*\?)')

RULES = [
    ('subject', re.compile(BEGIN + r'(?:What|Who|Whoever|Whatever(?! (?:the|a)\b))\b(?![^.!?]*\?)'),
     'name the subject: sender, router, child, caller'),
    ('subject', IN_CLAUSE, 'name the subject: sender, router, child, caller'),
    ('same', re.compile(BEGIN + r'The same\b(?! \w+)'), 'name the function or thing it is like'),
    ('same', re.compile(BEGIN + r'The same (?:as|by|in|for|without|with|when|if|at|of|where|quick)\b'),
     'name the function or thing it is like'),
    ('fragment', re.compile(BEGIN + r'(?:And|Nor|So that)\b'), 'make it a sentence, or join it to the one before'),
    ('etc', re.compile(r'(?<!/)\betc\.'), 'say what else, or leave it out'),
]

#: Words that only their author understood, and the words to use. Others are explained in
#: docs/glossary.rst.
WORDS = [(re.compile(pattern), better) for pattern, better in (
    (r"\bstrangers?\b(?!,)", 'untrusted: a sender, peer or message'),
    (r'\b(?:one|same|each) nouns?\b', 'class, or subject'),
    (r'\b(?:this [r]oom|[r]ooms? of the engine)\b', 'folder'),
    (r'\bfor want of\b', 'if there is no'),
    (r'\b(?:lets?|letting) go of\b(?! (?:its|the) wish)', 'release'),
    (r'\b(?:so|but|as|for|and|that) who(?:ever)? (?!is who\b|they\b)', 'name the subject'),
    (r'\b[Mm]end(?:s|ed)?\b(?!\()', 'fix, correct'),
)]


def paragraphs_of_text(text):
    for found in PARAGRAPH.finditer(text):
        yield text.count('\n', 0, found.start()) + 1, found.group()


def without_frame(comment):
    return '\n'.join(re.sub(r'^\s*\*? ?', '', line) for line in comment[2:-2].split('\n'))


def paragraphs_of_source(text, grammar):
    """
    Yield (line, text, whether it has lines of its own) of each comment, docstring and string of at
    least four words. Comment lines that follow each other are one.
    """
    line, seen, open_ = 1, 0, None
    for found in grammar.finditer(text):
        line += text.count('\n', seen, found.start())
        seen = found.start()
        token = found.group()
        before = text[text.rfind('\n', 0, seen) + 1:seen]
        if found.lastgroup == 'comment':
            words = token.lstrip('#/!:').strip()
            if open_ and not before.strip() and open_[2:] == [line - 1, len(before)]:
                open_[1] += '\n' + words
                open_[2] = line
                continue
            if open_:
                yield open_[0], open_[1], open_[3] is not None
            open_ = [line, words, line, len(before) if not before.strip() else None]
            continue
        if open_:
            yield open_[0], open_[1], open_[3] is not None
            open_ = None
        if token.startswith('/*'):
            token = without_frame(token)
        elif found.lastgroup == 'doc':
            token = token.lstrip('rbuRBU')[3:-3]
        elif token.count(' ') < 3:
            continue
        else:
            token = token.strip('bruBRUf').strip('\'"')
        for first, part in paragraphs_of_text(token):
            yield line + first - 1, part, not before.strip() and found.lastgroup != 'string'
    if open_:
        for first, part in paragraphs_of_text(open_[1]):
            yield open_[0] + first - 1, part, open_[3] is not None


def grammar_of(name):
    if name.endswith(('.py', '.pyi')):
        return PYTHON
    if name.endswith(('.c', '.h')):
        return C
    return SHELL


#: The line above a block of code or output in a page.
ABOVE_CODE = re.compile(r'(?!\.\. ).*::$|\.\. code-block::')


def rows_of_code(lines):
    """
    Return the numbers of the lines of a page that are in blocks of code or output.
    """
    rows, above = set(), None
    for row, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if above is not None and (indent > above or not line.strip()):
            rows.add(row)
        else:
            above = indent if ABOVE_CODE.match(line.strip()) else None
    return rows


def is_table(line):
    return bool(re.match(r'\s*(?:[+|=]|\.\. )', line)) or re.search(r'\S {3,}\S', line) is not None


def is_tabular(lines):
    return sum(map(is_table, lines)) > 1


def check_paragraph(paragraph):
    """
    Yield (rule, excerpt, advice) for the words of a paragraph.
    """
    lines = paragraph.strip().split('\n')
    text = ' '.join(re.sub(r'^(?:[-*] |:(?:ivar|param|raises|returns|attr|cvar)[^:]*: |\d\. )', '', line.strip())
                    for line in lines)
    for rule, pattern, advice in RULES:
        if pattern is IN_CLAUSE and is_tabular(lines):
            continue
        for found in pattern.finditer(text):
            yield rule, text[found.start():found.start() + 70], advice
    for pattern, better in WORDS:
        for found in pattern.finditer(text):
            yield 'word', text[max(0, found.start() - 30):found.end() + 30], better


def check_file(name, text):
    """
    Return a list of (line, rule, excerpt, advice) for a file, by its name.
    """
    code = ()
    if name.endswith(('.rst', '.md')):
        code = rows_of_code(text.split('\n'))
        parts = [(line, part, not is_tabular(part.split('\n'))) for line, part in paragraphs_of_text(text)]
    else:
        parts = list(paragraphs_of_source(text, grammar_of(name)))
    bad = []
    for line, paragraph, is_prose in parts:
        bad += [(line,) + found for found in check_paragraph(paragraph)]
        bad += [(line + i, 'columns', row[:60], 'at most %d columns' % MAX_COLUMNS)
                for i, row in enumerate(text.split('\n')[line - 1:line + paragraph.rstrip('\n').count('\n')])
                if is_prose and len(row) > MAX_COLUMNS and ' ' in row.strip(' -*') and not is_table(row)
                and line - 1 + i not in code]
    return bad


def all_files():
    return subprocess.run(['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, stdout=subprocess.PIPE,
                          universal_newlines=True, check=True).stdout.split('\n')


def is_checked(name):
    return (name.endswith(('.py', '.pyi', '.c', '.h', '.rst', '.md')) or name in ('Makefile', 'tools/setup', '.ci/run')) \
        and not name.startswith(LEFT_OUT) and os.path.isfile(os.path.join(ROOT, name))


def main():
    count = 0
    for name in filter(is_checked, sys.argv[1:] or all_files()):
        with open(os.path.join(ROOT, name), encoding='utf-8', errors='replace') as fp:
            text = fp.read()
        for line, rule, excerpt, advice in check_file(name, text):
            print('%s:%d: %s: "%s": %s' % (name, line, rule, excerpt, advice))
            count += 1
    if count:
        print('%d places; the reasons are at the head of tools/check_words.py.' % (count,))
    return int(bool(count))


if __name__ == '__main__':
    sys.exit(main())
