"""
Each sentence of docs/security.rst names the tests that show it, and those exist.
"""

import ast
import os
import re

import pytest

import places

pytestmark = pytest.mark.once



def text():
    with open(os.path.join(places.ROOT, 'docs', 'security.rst')) as fp:
        return fp.read()


def items():
    """
    Return the text of each list item.
    """
    return re.findall(r'^\* (.*(?:\n  .*)*)', text(), re.M)


def rows():
    """
    Return the text of each row of a table, without the heads.
    """
    return [row for row in re.findall(r'^   \* - (.*(?:\n     .*)*)', text(), re.M) if not row.startswith('attacker\n')]


def paragraphs():
    """
    Return each paragraph of prose that says how it is: those with a name, and the one about
    upstream.
    """
    named = re.findall(r'^\*[A-Z][a-z ]+\.\* (?:.+\n)*', text(), re.M)
    return named + re.findall(r'^Children run the code of their master(?:.+\n)*', text(), re.M)


def functions(name):
    with open(places.test_file(name)) as fp:
        return set(node.name for node in ast.parse(fp.read()).body if isinstance(node, ast.FunctionDef))


def test_each_sentence_about_trust_names_its_tests():
    assert len(items()) > 20
    assert len(rows()) > 60
    assert len(paragraphs()) == 5
    for item in items() + rows() + [paragraph.rstrip() for paragraph in paragraphs()]:
        assert re.search(r'``test_\w+\.py::test_\w+``$', item), item


def test_each_row_names_attacker_asset_mechanism_and_test():
    for row in rows():
        assert len(re.findall(r'^     -(?: |$)', row, re.M)) == 3, row


def test_the_tests_that_are_named_exist():
    # In tables, too.
    for name, function in re.findall(r'``(test_\w+\.py)::(\w+)``', text()):
        assert function in functions(name), (name, function)
