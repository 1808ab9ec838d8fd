"""
Reading the imports out of a code object.
"""

import dis
import glob
import os
import subprocess
import sys

import pytest
import pythons

import mitogen.imports

pytestmark = pytest.mark.once


def scan(source):
    return list(mitogen.imports.codeobj_imports(compile(source, '<test>', 'exec', 0, True)))


def test_each_form_of_import_is_reported_in_order():
    source = 'import a; import e, e.f as g; from j import k, m as n; import e'
    assert scan(source) == [
        (0, 'a', ()), (0, 'e', ()), (0, 'e.f', ()), (0, 'j', ('k', 'm')), (0, 'e', ()),
    ]


def test_dotted_star_and_relative_forms():
    source = 'import a.b\nfrom o import *\nfrom . import a\nfrom ..p.q import r as s\n'
    assert scan(source) == [
        (0, 'a.b', ()), (0, 'o', ('*',)), (1, '', ('a',)), (2, 'p.q', ('r',)),
    ]


def test_imports_inside_functions_and_classes_are_not_reported():
    source = (
        'def f():\n    import a\n    from b import c\n'
        'class C(object):\n    import d\n    def g(self):\n        import e\n'
        'h = lambda: __import__("i")\n'
    )
    assert scan(source) == []


def test_imports_under_if_and_try_count_unless_the_compiler_pruned_them():
    assert scan('import sys\nif sys.path:\n    import a\nelse:\n    import b\n'
                'try:\n    import c\nexcept ImportError:\n    import d\n') == [
        (0, 'sys', ()), (0, 'a', ()), (0, 'b', ()), (0, 'c', ()), (0, 'd', ()),
    ]
    assert scan('if True:\n    import a\nelse:\n    import b\n') == [(0, 'a', ())]


#: Imports beside `if TYPE_CHECKING:`, and the names of those that are performed.
CHECKED = '''
import typing
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import no_a, no_b
    if x:
        import no_c
else:
    import a
if typing.TYPE_CHECKING and x:
    import no_d
import b
if not TYPE_CHECKING:
    import c
if TYPE_CHECKING or x:
    import d
x = TYPE_CHECKING
if x:
    import e
if TYPE_CHECKING: %s import no_e
import f
if __name__ == '__main__':
    import no_f
elif x:
    import g
if '__main__' == __name__: import no_g
if __name__ != '__main__':
    import h
if __name__ == '__main__' or x:
    import i
x = __name__ == '__main__'
if x: import j
'''


def test_imports_for_type_checkers_and_main_programs_are_none_of_those_that_are_performed():
    code = compile(CHECKED % ('f(1, [2]); ' * 300,), '<test>', 'exec', 0, True)
    found = [name for _, name, _ in mitogen.imports._imports_when_run(code)]
    assert found == ['typing', 'typing', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j']
    assert [name for _, name, _ in mitogen.imports.codeobj_imports(code)].count('no_e') == 1
    nothing = compile('import a', '<test>', 'exec', 0, True)
    assert list(mitogen.imports._imports_when_run(nothing)) == [(0, 'a', ())]


@pytest.mark.parametrize('before', [200, 300, pytest.param(70000, marks=pytest.mark.slow)])
def test_operands_too_large_for_one_instruction(before):
    source = ''.join('name_%d = %d\n' % (i, i + 1000) for i in range(before))
    assert scan(source + 'import zz.yy\nfrom ..aa import bb, cc\n') == [
        (0, 'zz.yy', ()), (2, 'aa', ('bb', 'cc')),
    ]


def test_walking_agrees_with_dis_on_the_standard_library():
    compared = 0
    for path in sorted(glob.glob(os.path.join(os.path.dirname(os.__file__), '*.py')))[::8]:
        with open(path, 'rb') as fp:
            code = compile(fp.read(), path, 'exec', 0, True)
        walked = [found for _, found in mitogen.imports._Words(code).imports()]
        assert walked == list(mitogen.imports._imports_by_dis(code)), path
        compared += len(walked)
    assert compared > 50


PROGRAM = '''
import sys
sys.path.insert(0, sys.argv[1])
import mitogen.imports
source = ''.join('name_%d = %d\\n' % (i, i + 1000) for i in range(70000))
source += 'import a; import e, e.f as g\\nfrom ..j import k, m as n\\ndef f():\\n  import x\\n'
print(list(mitogen.imports.codeobj_imports(compile(source, 'x', 'exec', 0, True))))
'''

@pytest.mark.slow
@pytest.mark.parametrize('name', pythons.NAMES)
def test_every_interpreter_at_hand_reads_its_own_bytecode(name):
    level = -1 if name == 'python2.7' else 0
    root = os.path.dirname(os.path.dirname(mitogen.imports.__file__))
    out = subprocess.check_output([pythons.find_python(name), '-c', PROGRAM, root])
    assert eval(out) == [(level, 'a', ()), (level, 'e', ()), (level, 'e.f', ()), (2, 'j', ('k', 'm'))]


def test_an_import_after_bytecode_that_is_not_known_is_an_error(monkeypatch):
    code = compile('x = y\nimport a', '<test>', 'exec')
    known = [ins for ins in dis.get_instructions(code) if ins.opname == 'IMPORT_NAME' or ins.argval == 'y']
    monkeypatch.setattr(dis, 'get_instructions', lambda _code: known)
    with pytest.raises(ValueError, match='not known'):
        list(mitogen.imports._imports_by_dis(code))


@pytest.mark.skipif(sys.version_info < (3, 15), reason='a lazy import is a syntax error')
def test_lazy_imports_are_reported_as_others_are():
    assert scan('lazy import a.b\nlazy from c import d\n') == [(0, 'a.b', ()), (0, 'c', ('d',))]
