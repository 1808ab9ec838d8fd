"""
Making source smaller without moving it to other lines.
"""

import ast
import glob
import os
import subprocess

import pytest
import pythons

import mitogen._shrink
import mitogen.minify
from mitogen.minify import minimize_source

pytestmark = pytest.mark.once

PACKAGE = os.path.dirname(mitogen.minify.__file__)
PACKAGE_FILES = sorted(glob.glob(os.path.join(PACKAGE, '*.py')))

SAMPLES = {
    'nothing': ('', ''),
    'one newline': ('\n', '\n'),
    'no newline at the end': ('x', 'x'),
    'blanks only': ('   \n\t\n', '\n\n'),
    'a comment after code': ('a\nb\nx = 1  # foo\n', 'a\nb\nx = 1\n'),
    'a comment of its own': ('a\nb\n    # foo\nc\n', 'a\nb\n\nc\n'),
    'comments on the first two lines stay': (
        '#!/usr/bin/python\n# coding: utf-8\n# third\nx = 1\n',
        '#!/usr/bin/python\n# coding: utf-8\n\nx = 1\n'),
    'a function with a docstring': (
        'def f():\n    """a\n    b"""\n    pass\n',
        'def f():\n\n\n pass\n'),
    'a class and a method with docstrings': (
        'class A(object):\n    """doc"""\n    def m(self):\n        """doc\n        x"""\n        pass\n',
        'class A(object):\n\n def m(self):\n\n\n  pass\n'),
    'a body of nothing but a docstring': (
        'class E(Exception):\n    """doc"""\n\n\nx = 1\n',
        'class E(Exception):\n\n\n\nx = 1\n'),
    'strings among statements': ('a\nb\n"x"\nr"y" \'z\'\nu"w" \\\n"v"\nc\n', 'a\nb\n\n\n\n\nc\n'),
    'strings in use stay': (
        'x = "a"\nf("b")\n"c",\n("d")\n"e"; g\nh; "i"\ndef j(): "k"\n"l" + m\n',
        'x = "a"\nf("b")\n"c",\n("d")\n"e"; g\nh; "i"\ndef j(): "k"\n"l" + m\n'),
    'format strings stay, for they evaluate something': ('f"{x()}"\nRf"y"\n', 'f"{x()}"\nRf"y"\n'),
    'tabs': ('if 1:\n\tif 2:\n\t\tx = [\n\t\t\t1,\n\t\t]\n', 'if 1:\n if 2:\n  x = [\n   1,\n  ]\n'),
    'dedent to a middle level': (
        'if 1:\n    for x in y:\n        pass\n    else:\n        z\n',
        'if 1:\n for x in y:\n  pass\n else:\n  z\n'),
    'a comment to the left of its block': ('if 1:\n    a\n  # c\n    x\n', 'if 1:\n a\n\n x\n'),
    'brackets move with their block': (
        'if 1:\n    x = f(1,\n          2, # two\n\n  # all the rest\n      3)\n',
        'if 1:\n x = f(1,\n       2,\n\n\n   3)\n'),
    'brackets do not move past the margin': ('if 1:\n    x = {\n   "a": 1}\n', 'if 1:\n x = {\n"a": 1}\n'),
    'continued lines move with their block': ('if 1:\n    x = 1 + \\\n        2\n', 'if 1:\n x = 1 + \\\n     2\n'),
    'strings keep their lines': (
        'if 1:\n    x = """ a  \n        b # c\n\n    d""" + e(\n      1)  \n',
        'if 1:\n x = """ a  \n        b # c\n\n    d""" + e(\n   1)\n'),
    'quotes and hashes in strings': (
        'a\nb\nx = "\\"#", \'\\\'#\', \'#\', """\\"""#""", r"\\\\"  # c\n',
        'a\nb\nx = "\\"#", \'\\\'#\', \'#\', """\\"""#""", r"\\\\"\n'),
    'line ends of other systems': ('x=1\r\nif 1:\r\n    y=2  # c\r\n', 'x=1\r\nif 1:\r\n y=2\r\n'),
    'form feeds': ('\f\ndef f():\n    \f\n    pass\n', '\ndef f():\n\n pass\n'),
    'bytes': (u'a\nb\nx = "\u20ac"  # foo\n'.encode('utf-8'), u'a\nb\nx = "\u20ac"\n'),
    'bytes with a byte order mark': (b'\xef\xbb\xbfx = 1\n', 'x = 1\n'),
    'bytes in another encoding': (
        u'# coding: latin-1\nx = "\xe9"\n'.encode('latin-1'), u'# coding: latin-1\nx = "\xe9"\n'),
}

#: Fields of format strings, as Python 3.12 allows them.
FORMAT_SAMPLES = [
    'x = f"{a["b"]}"  # c\n',
    "x = f'{a:>{w}.{p}} {{not}} {b!r:^10} {d[\"#\"]}'  # c\n",
    'x = f"""{a["#"]\n  # inside\n  } {"}"} {f"{b}"}"""  # c\n',
    'x = rf"\\{a}\\N{b}", f"\\N{DASH} \\{c} \\\\{d}"  # c\n',
    'x = f"{ {1: 2}[1] } {(lambda: 1)()} {y:=^5}"  # c\n',
]


@pytest.mark.parametrize('name', sorted(SAMPLES))
def test_sample(name):
    source, expected = SAMPLES[name]
    assert minimize_source(source) == expected


def test_result_is_text():
    assert type(minimize_source(b'x')) is type(minimize_source(u'x')) is type(u'')


@pytest.mark.parametrize('source', FORMAT_SAMPLES)
def test_fields_of_format_strings_are_left_alone(source):
    assert minimize_source('a\nb\n' + source) == 'a\nb\n' + source.replace('  # c\n', '\n')


@pytest.mark.parametrize('source', ['x = (1  # a\n', '\n\nx = "abc # d\n', ')\n\n# c\n', 'x = f"{a\n\n\n# c'])
def test_what_is_no_python_comes_back_as_it_is(source):
    assert minimize_source(source) == source


def test_fill_gives_empty_bodies_a_pass():
    source = 'class A:\n    "doc"\n\nif x:\n    def f():\n        """a\n        b"""\n    y = 1\n'
    assert minimize_source(source, fill=True) == 'class A:\n pass\n\nif x:\n def f():\n  pass\n\n y = 1\n'


def test_fill_leaves_other_bodies_alone():
    source = 'class A:\n    "doc"\n    x = 1\nclass B:\n    "doc"\n    class C:\n        "doc"\n'
    assert minimize_source(source, fill=True) == 'class A:\n\n x = 1\nclass B:\n\n class C:\n  pass\n'


@pytest.mark.parametrize('path', PACKAGE_FILES, ids=os.path.basename)
def test_each_file_of_the_package_stays_python_on_the_same_lines(path):
    with open(path, 'rb') as fp:
        source = fp.read().decode('utf-8')
    minified = minimize_source(source)
    compile(minified, path, 'exec', 0, True)
    assert minified.count('\n') == source.count('\n')
    for ours, theirs in zip(minified.split('\n'), source.split('\n')):
        if ours.strip():
            assert ours.split()[0] == theirs.split()[0]
    if os.path.basename(path) not in ('_build.py', '_core_texts.py'):
        # Those are written by the build: lines of comment, which stay, and constants.
        assert len(minified) < len(source)


def statements(tree):
    """
    Return what the tree says and on which line, but for docstrings and `pass`.
    """
    found = []
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Pass):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        fields = [(name, value) for name, value in ast.iter_fields(node)
                  if not isinstance(value, (ast.AST, list)) and name != 'kind']
        found.append((type(node).__name__, getattr(node, 'lineno', None), fields))
        todo.extend(ast.iter_child_nodes(node))
    return found


#: Each of so many files of the standard library is tried; MITOGEN_TEST_LIBRARY=1 has all of them.
STEP = int(os.environ.get('MITOGEN_TEST_LIBRARY', 24))


def standard_library():
    root = os.path.dirname(os.__file__)
    paths = glob.glob(os.path.join(root, '*.py')) + glob.glob(os.path.join(root, '*', '*.py'))
    return sorted(path for path in paths if 'packages' not in path and 'lib2to3' not in path)[::STEP]


@pytest.mark.slow
@pytest.mark.parametrize('part', range(3))
def test_the_meaning_of_the_standard_library_stays(part):
    compared = 0
    for path in standard_library()[part::3]:
        with open(path, 'rb') as fp:
            source = fp.read()
        try:
            expected = statements(ast.parse(source))
        except (SyntaxError, ValueError):
            continue
        assert statements(ast.parse(minimize_source(source, fill=True))) == expected, path
        compared += 1
    assert compared > 2


PROGRAM = r'''
import io, sys
sys.path.insert(0, sys.argv[1])
import mitogen.minify
for path in sys.argv[2:]:
    with io.open(path, encoding='utf-8') as fp:
        source = fp.read()
    minified = mitogen.minify.minimize_source(source)
    assert type(minified) is type(u''), path
    assert minified.count('\n') == source.count('\n'), path
    compile(minified.encode('utf-8'), path, 'exec', 0, True)
print(len(sys.argv))
'''


@pytest.mark.slow
@pytest.mark.parametrize('name', pythons.NAMES)
def test_every_interpreter_at_hand_can_minify_and_compile_the_package(name):
    args = [pythons.find_python(name), '-c', PROGRAM, os.path.dirname(PACKAGE)] + PACKAGE_FILES
    assert int(subprocess.check_output(args)) == len(args) - 2


# ---- smaller still

SHRUNK = {
    'locals become letters': (
        'def f(first, second=2):\n    total = first + second\n    return total\n',
        'def f(first,second=2):a=first+second;return a\n'),
    'self and what nobody can name': (
        'class A(object):\n    def m(self, x, *args):\n        self.total = args\n',
        'class A(object):\n def m(S,x,*a):S.total=a\n'),
    'a function that is named like a local of it': (
        'def reply(msg):\n    reply = msg\n    return reply\n',
        'def reply(msg):a=msg;return a\n'),
    'arguments by name stay': (
        'def f():\n    size = 1\n    return dict(size=size)\n',
        'def f():size=1;return dict(size=size)\n'),
    'globals stay': (
        'def f():\n    global total\n    total = other\n',
        'def f():global total;total=other\n'),
    'a name that is global further in stays': (
        'def f():\n    def g():\n        global total\n        total = 1\n    total = 2\n',
        'def f():\n def g():global total;total=1\n total=2\n'),
    'imports keep the name of the module': (
        'def f():\n    import os\n    from a import value\n    return os, value\n',
        'def f():import os;from a import value;return os,value\n'),
    'parameters of private functions, unless given by name': (
        'def _f(one, two):\n    return one\n_f(3, two=4)\n',
        'def _f(a,two):return a\n_f(3,two=4)\n'),
    'functions that look at names': (
        'def f():\n    value = 1\n    return locals()\n',
        'def f():value=1;return locals()\n'),
    'branches': (
        'if YES:\n    a = 1\nelse:\n    a = 2\nif not YES:\n    b = 1\n'
        'if YES and c:\n    d = 1\nif YES or c:\n    e = 1\n',
        'a=1\nif c:d=1\nif YES or c:e=1\n'),
    'a block that would be empty': (
        'def f():\n    if not YES:\n        return 1\n',
        'def f():pass\n'),
    'literals side by side': (
        'a = ("b" "c"\n     \'d\' r"e" "\\0" "1")\n',
        'a=("bc" \'d\' r"e" "\\0" "1")\n'),
    'blanks that matter': (
        'a = 1 if b else 0x1f or 2\nassert not b, "c"\nd = "e"if b else"f"\n',
        'a=1 if b else 0x1f or 2;assert not b,"c";d="e"if b else"f"\n'),
    'decorators and blocks in blocks': (
        '@d\ndef f():\n    for x in y:\n        if x:\n            z()\n'
        '    try:\n        a()\n    finally:\n        b()\n',
        '@d\ndef f():\n for x in y:\n  if x:z()\n try:a()\n finally:b()\n'),
}


@pytest.mark.parametrize('name', sorted(SHRUNK))
def test_shrunk_samples(name):
    source, expected = SHRUNK[name]
    compile(source, name, 'exec')
    assert mitogen._shrink.shrink_source(source, {'YES': True}) == expected
    compile(expected, name, 'exec')


DIVIDED = '''
_SELDOM = True
class A(object):
    @_seldom
    @classmethod
    def f(cls, value=1):
        return value
    def g(self):
        return 2
    if _SELDOM:
        h = 3
@_seldom
def i():
    return 4
if _SELDOM:
    if PY3:
        j = 5
    else:
        j = 6
k = 7
'''


def test_what_is_seldom_used_is_divided_from_the_rest():
    boot, late = mitogen._shrink.divide_source(DIVIDED, {'PY3': True})
    assert boot == '_SELDOM=False\nclass A:\n f=_Late()\n def g(S):return 2\n h=_Late()\nk=7\n'

    class Late(object):
        pass

    names = {'_Late': Late, '_seldom': lambda func: func, 'PY3': True}
    exec(boot, names)
    cls = names['A']
    assert cls().g() == 2 and 'i' not in names and 'j' not in names
    exec(late, names)
    assert names['A'] is cls
    assert (cls.f(), cls.h, names['i'](), names['j'], names['_LATE']) == (1, 3, 4, 5, False)
    # Everything is there if the text is not divided.
    whole = {}
    exec(mitogen._shrink.shrink_source(DIVIDED, {'PY3': False}), whole)
    assert (whole['A'].f(), whole['A'].h, whole['i'](), whole['j']) == (1, 3, 4, 6)


@pytest.mark.parametrize('path', PACKAGE_FILES, ids=os.path.basename)
def test_the_names_that_others_see_stay(path):
    with open(path) as fp:
        source = fp.read()

    def seen(text):
        return sorted(
            getattr(node, 'name', None) or node.attr for node in ast.walk(ast.parse(text))
            if isinstance(node, (ast.ClassDef, ast.Attribute)))

    shrunk = mitogen._shrink.shrink_source(source, {})
    compile(shrunk, path, 'exec')
    assert seen(shrunk) == seen(source)
