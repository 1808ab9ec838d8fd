"""
The checker of words: which sentences it refuses, and that the project's own pass.
"""

import os
import subprocess
import sys

import pytest

import places

TOOL = os.path.join(places.ROOT, 'tools', 'check_words.py')

pytestmark = [pytest.mark.once, pytest.mark.skipif(not os.path.exists(TOOL), reason='needs the source tree')]


@pytest.fixture(scope='module')
def checker():
    sys.path.insert(0, os.path.dirname(TOOL))
    try:
        import check_words
        yield check_words
    finally:
        sys.path.remove(os.path.dirname(TOOL))
        sys.modules.pop('check_words', None)


def found(checker, name, text):
    return [(line, rule) for line, rule, _, _ in checker.check_file(name, text)]


@pytest.mark.parametrize('text,rule', [
    ('Who waits is told.', 'subject'),
    ('It ends. What waits is dropped.', 'subject'),
    ('The queue: what waits for a reader.', 'subject'),
    ('One thread leads; who waits is a follower.', 'subject'),
    ('Short. The same with a lock.', 'same'),
    ('It ends. And nobody knows.', 'fragment'),
    ('Locks, files etc. are kept.', 'etc'),
    ('It is not mended yet.', 'word'),
    ('word ' * 30, 'columns'),
])
def test_a_habit_is_refused_in_each_kind_of_text(checker, text, rule):
    assert found(checker, 'page.rst', 'Title\n=====\n\n' + text) == [(4, rule)]
    assert found(checker, 'module.py', 'x = 1\n# %s\n' % (text,)) == [(2, rule)]
    assert found(checker, 'module.py', 'def f():\n    """\n    %s\n    """\n' % (text,)) == [(3, rule)]
    assert found(checker, 'file.c', 'int x;\n\n/* %s */\n' % (text,)) == [(3, rule)]
    assert found(checker, 'Makefile', '# %s\nall:\n' % (text,)) == [(1, rule)]
    if rule != 'columns':
        assert found(checker, 'module.py', 'raise Error("%s")\n' % (text,)) == [(1, rule)]


@pytest.mark.parametrize('text', [
    'What does a call cost?', 'Nobody knows who waits.', 'The same thread goes on.', 'Whatever the sender, nothing is lost.',
    'One edits /etc.', 'A table says "what" now and then.',
])
def test_a_plain_sentence_passes(checker, text):
    for name, form in ('page.rst', '%s\n'), ('module.py', '# %s\n'), ('file.h', '/* %s */\n'):
        assert found(checker, name, form % (text,)) == []


def test_a_sentence_is_seen_across_the_lines_of_a_comment(checker):
    assert found(checker, 'module.py', '# The stream ends.\n# Who\n# waits is told.\n') == [(1, 'subject')]
    assert found(checker, 'file.c', '/* The stream ends.\n * Who\n * waits is told. */\n') == [(1, 'subject')]


def test_code_is_no_text(checker):
    assert found(checker, 'module.py', 'WHO = {"Who": 1, "What": [2, 3]}  # names\n') == []
    assert found(checker, 'module.py', 'x = (%s)\n' % (' + '.join(['"a"'] * 60),)) == []


@pytest.mark.skipif(not os.path.exists(os.path.join(places.ROOT, '.git')), reason='git names the files')
@pytest.mark.seconds(600)
def test_the_words_of_this_project_pass():
    proc = subprocess.run([sys.executable, TOOL], cwd=places.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=590)
    assert proc.returncode == 0, proc.stdout
