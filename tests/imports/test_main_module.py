# -*- coding: utf-8 -*-
"""
The main module, whose functions children call: of a package, a script of any name, and one that has
no file.
"""

import subprocess
import sys

import pytest

import mitogen.master
import mitogen.parent

#: The end of each program.
RUN = '''
if __name__ == '__main__':
    import mitogen.master
    with mitogen.master.Router() as router:
        print(router.local().call(f))
'''


def run(args, cwd, text=None):
    done = subprocess.run([sys.executable] + args, cwd=str(cwd), input=text, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    return done.stdout.decode('utf-8'), done.stderr.decode('utf-8', 'replace')


@pytest.mark.parametrize('module', ['app', 'app.tool', 'app.inner.tool'])
def test_a_program_of_a_package_may_import_by_dots(tmp_path, module):
    app = tmp_path / 'app'
    (app / 'inner').mkdir(parents=True)
    for name in '__init__', 'inner/__init__':
        (app / (name + '.py')).write_text('')
    (app / 'util.py').write_text('def helper(): return "helped"\n')
    (app / '__main__.py').write_text(
        '"""from .nowhere import text"""\nfrom __future__ import absolute_import\nfrom .util import helper; from . import '
        'util\ndef f():\n    from . util import helper as again\n    return [helper(), util.helper(), again()]\n' + RUN)
    (app / 'tool.py').write_text((app / '__main__.py').read_text())
    (app / 'inner/tool.py').write_text(
        'from ..util import (\n    helper)\nfrom .. import util\ndef f():\n    return [helper(), util.helper(), "helped"]\n' +
        RUN)
    assert run(['-m', module], tmp_path) == ("['helped', 'helped', 'helped']\n", '')


@pytest.mark.parametrize('coding', ['utf-8', 'latin-1'])
def test_a_script_may_be_named_as_it_likes_and_have_any_letters(tmp_path, coding):
    text = u'# -*- coding: %s -*-\n# M\xfcller\ndef f(): return len(u"\xe9")\n' % coding
    (tmp_path / 'script').write_bytes((text + RUN).encode(coding))
    assert run(['script'], tmp_path) == ('1\n', '')


@pytest.mark.parametrize('args', [['-c', 'def f(): return 1\n' + RUN], ['-']], ids=['-c', 'stdin'])
def test_a_function_of_a_program_without_a_file_is_refused_with_the_reason(tmp_path, args):
    out, err = run(args, tmp_path, ('def f(): return 1\n' + RUN).encode())
    assert out == ''
    assert err.splitlines()[-1] == 'TypeError: ' + mitogen.parent.CallChain._sourceless_msg % 'f'


def test_a_program_without_a_file_may_say_what_its_source_is(tmp_path):
    program = ('def f(): return 1\nimport mitogen.master\nwith mitogen.master.Router() as router:\n'
               '    router.responder.add_source_override("__main__", "x", "def f(): return 2\\n'
               'if __name__ == \'__main__\': pass\\n", False)\n'
               '    print(router.local().call(f))\n')
    assert run(['-c', program], tmp_path) == ('2\n', '')


@pytest.mark.parametrize('line, package, expected', [
    ('from . import x', 'a', 'from a import x'), ('from .b import x', 'a', 'from a.b import x'),
    ('from ... c import x', 'a.b.d', 'from a.c import x'), ('from .important import x', 'a', 'from a.important import x'),
    ('from .... import x', 'a', 'from .... import x'), ('from b import x', 'a', 'from b import x'),
    ('x = "from . import x"', 'a', 'x = "from . import x"'),
])
def test_relative_imports_are_written_out(line, package, expected):
    assert mitogen.master._with_absolute_imports(line.encode(), package) == expected.encode()
