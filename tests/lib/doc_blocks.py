"""
Reads the code blocks of a document, and does what they say.

A document is plain reStructuredText. Comments in it tell what a block is for:

``.. file: NAME``
    the next block is the content of that file
``.. run elsewhere: tests/NAME.py``
    the next block is not run from here, but by that test

A ``console`` block has commands, after ``$``, and what they print; ``...`` stands for anything.
"""

import os
import re
import subprocess
import sys
import textwrap

import places


COMMENT = re.compile(r'^\.\. (file|run elsewhere): (\S+)$')
BLOCK = re.compile(r'^( *)\.\. code-block:: (\S+)$')


class Block(object):
    def __init__(self, language, text, line, file=None, elsewhere=None):
        self.language = language
        self.text = text
        self.line = line
        self.file = file
        self.elsewhere = elsewhere

    def commands(self):
        """
        Return a list of (command, what it prints).
        """
        found = []
        for line in self.text.splitlines():
            if line.startswith('$ '):
                found.append([line[2:], ''])
            else:
                found[-1][1] += line + '\n'
        return found


def read(path):
    with open(path, encoding='utf-8') as fp:
        return fp.read()


def blocks(path):
    """
    Return the blocks of a document in their order.
    """
    lines = read(path).splitlines()
    found, notes, number = [], {}, 0
    while number < len(lines):
        note = COMMENT.match(lines[number])
        start = BLOCK.match(lines[number])
        number += 1
        if note:
            notes[note.group(1)] = note.group(2)
        if not start:
            continue
        first, body = number, []
        while number < len(lines) and (not lines[number].strip() or
                                       lines[number].startswith(start.group(1) + ' ')):
            body.append(lines[number])
            number += 1
        text = textwrap.dedent('\n'.join(body)).strip('\n') + '\n'
        assert not text.startswith(':'), '%s:%d: an option, which this reader does not know' % (path, first)
        found.append(Block(start.group(2), text, first, notes.get('file'), notes.get('run elsewhere')))
        notes = {}
    return found


def pattern(expected):
    return '.*'.join(re.escape(part) for part in expected.rstrip('\n').split('...')) + r'\n?\Z'


def follow(path, folder):
    """
    Write the files and run the commands of a document, in its order; return how many were run.

    Python that belongs to no file is a fragment of a program, which is only compiled.
    """
    env = dict(os.environ, PYTHONUNBUFFERED='1')
    for name in ('MITOGEN_LOG_LEVEL', 'PYTHONPATH'):
        env.pop(name, None)
    env['PATH'] = os.path.dirname(sys.executable) + os.pathsep + env['PATH']
    count = 0
    for block in blocks(path):
        where = '%s:%d' % (os.path.relpath(path, places.ROOT), block.line)
        if block.elsewhere:
            assert os.path.exists(os.path.join(places.ROOT, block.elsewhere)), where
            continue
        if block.language == 'python':
            compile(block.text, where, 'exec')
        if block.file:
            target = os.path.join(str(folder), block.file)
            if not os.path.isdir(os.path.dirname(target)):
                os.makedirs(os.path.dirname(target))
            with open(target, 'w', encoding='utf-8') as fp:
                fp.write(block.text)
        elif block.language == 'console':
            for command, expected in block.commands():
                # -c keeps the interpreter of this test, whatever "python" is called here.
                command = re.sub(r'(^|[ |])python ', lambda m: m.group(1) + '"%s" ' % sys.executable, command)
                proc = subprocess.run(command, shell=True, cwd=str(folder), env=env, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, timeout=100)
                assert re.match(pattern(expected), proc.stdout, re.S), '%s: %s\nexpected:\n%s\nbut it printed:\n%s' % (
                    where, command, expected, proc.stdout)
                assert proc.returncode == 0, '%s: %s\n%s' % (where, command, proc.stdout)
                count += 1
    return count
