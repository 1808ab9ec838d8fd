"""
The page of ten questions, and the rules of the loop: each file and name that is there exists.
"""

import os
import re

import pytest

import doc_blocks
import places

ROOT = places.ROOT
DOCS = os.path.join(ROOT, 'docs')

pytestmark = [pytest.mark.once, pytest.mark.skipif(not os.path.isdir(DOCS), reason='needs the source tree')]


def literals(text):
    return re.findall('``([^`]+)``', text)


def is_path(literal):
    return '/' in literal


def defines(text, name):
    """
    Return whether a file has a class, a function, or an assigned name. A name with a dot is a
    method, with its class.
    """
    return all(re.search(r'^\s*((class|def) %s\b|%s = )|^[A-Za-z].*\b%s[([]' % ((re.escape(part),) * 3), text, re.M)
               for part in name.split('.'))


def answers():
    """
    Return (question, answer) pairs; none where the source tree is not there.
    """
    if not os.path.isdir(DOCS):
        return []
    page = doc_blocks.read(os.path.join(DOCS, 'where.rst'))
    return re.findall(r'^\*(.+\?)\*\n((?:    .*\n|\n)+)', page, re.M)


def test_there_are_ten_questions():
    assert len(answers()) == 10


@pytest.mark.parametrize('question, answer', answers())
def test_the_files_and_names_of_an_answer_are_there(question, answer):
    found = literals(answer)
    paths = [os.path.join(ROOT, path) for path in found if is_path(path)]
    assert paths
    assert [path for path in paths if not os.path.exists(path)] == []
    texts = [doc_blocks.read(path) for path in paths if os.path.isfile(path)]
    names = [name for name in found if not is_path(name)]
    assert [name for name in names if not any(defines(text, name) for text in texts)] == []


def test_the_six_rules_of_the_loop_are_functions():
    loop = os.path.join(ROOT, '_mitogen_core', 'engine', 'loop')
    rules = re.findall(r'^ \*  (\d)\. (\w+):', doc_blocks.read(os.path.join(loop, 'lead.h')), re.M)
    assert [number for number, _ in rules] == list('123456')
    page = doc_blocks.read(os.path.join(DOCS, 'architecture.rst'))
    assert re.findall(r'^(\d)\. ``(\w+)``:', page, re.M) == rules
    text = doc_blocks.read(os.path.join(loop, 'lead.c'))
    assert [name for _, name in rules if not defines(text, name)] == []
