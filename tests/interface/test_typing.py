"""
The stubs are true of the package, and a typed program finds them complete.
"""

import os
import re
import subprocess
import sys

import pytest

import mitogen

import places

PACKAGE = os.path.dirname(mitogen.__file__)
STUBS = sorted(name[:-4] for name in os.listdir(PACKAGE) if name.endswith('.pyi'))

TYPED = os.path.join(places.TESTS, 'interface', 'typing_usage.py')
WRONG = os.path.join(places.TESTS, 'interface', 'typing_wrong.py')

pytest.importorskip('mypy')


def run(args, cwd):
    env = dict((key, value) for key, value in os.environ.items() if not key.startswith('MYPY') and key != 'PYTHONPATH')
    proc = subprocess.run([sys.executable, '-m'] + args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          cwd=str(cwd), env=env, timeout=110)
    return proc.returncode, proc.stdout


def test_the_package_says_that_it_is_typed():
    assert os.path.exists(os.path.join(PACKAGE, 'py.typed'))
    assert {'__init__', 'core', 'parent', 'master', 'select', 'service', 'utils', 'unix', 'fork'} <= set(STUBS)


#: All that is strict, but for the examples: they are not annotated, as they run on Python 2.7 too.
#: Their bodies are checked all the same.
CONFIG = '''
[mypy]
strict = True
warn_unused_ignores = True
[mypy-{examples}]
check_untyped_defs = True
disallow_untyped_defs = False
disallow_incomplete_defs = False
disallow_untyped_calls = False
disable_error_code = var-annotated
'''


def examples():
    folder = os.path.join(places.ROOT, 'examples')
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith('.py'))


@pytest.fixture(scope='module')
def checked(tmp_path_factory):
    """
    The output of one run of mypy over the typed programs and the examples.
    """
    folder = tmp_path_factory.mktemp('mypy')
    paths = examples() if os.path.isdir(os.path.join(places.ROOT, 'examples')) else []
    names = [os.path.basename(path)[:-3] for path in paths]
    (folder / 'mypy.ini').write_text(CONFIG.format(examples=','.join(names + ['demo_pkg.*'])))
    status, out = run(['mypy', '--config-file', str(folder / 'mypy.ini'), '--cache-dir', os.devnull, TYPED, WRONG] + paths,
                      os.path.dirname(paths[0]) if paths else folder)
    assert status in (0, 1), out
    return out


@pytest.mark.once
@pytest.mark.seconds(900)
def test_a_typed_program_passes_the_strict_checks(checked):
    assert 'typing_usage.py' not in checked


@pytest.mark.once
@pytest.mark.seconds(900)
def test_each_wrong_line_of_a_program_is_refused_and_no_other(checked):
    with open(WRONG) as fp:
        wrong = {number for number, line in enumerate(fp, 1) if line.endswith('# wrong\n')}
    assert {int(number) for number in re.findall(r'typing_wrong\.py:(\d+): error:', checked)} == wrong, checked


@pytest.mark.once
@pytest.mark.seconds(900)
@pytest.mark.skipif(not os.path.isdir(os.path.join(places.ROOT, 'examples')), reason='needs the source tree')
def test_the_examples_use_the_interface_as_the_stubs_have_it(checked):
    assert len(examples()) > 3
    # Errors that a version of mypy finds in the standard library's stub of logging.Handler.lock are
    # not about us.
    errors = [line for line in checked.splitlines()
              if ': error:' in line and 'typing_wrong.py' not in line and not re.search(r'"(RLock \| None|Optional\[(RLock|LockType)\])"', line)]
    assert errors == [], checked


@pytest.mark.seconds(900)
def test_the_stubs_agree_with_the_package(tmp_path):
    # With the running core: a class that it replaces must look like its twin. Modules one by one,
    # as some have no stub. Nothing else is let through.
    modules = ['mitogen.' + name for name in STUBS if name != '__init__']
    status, out = run(['mypy.stubtest', '--concise', '--ignore-missing-stub', '--ignore-disjoint-bases']
                      + modules, tmp_path)
    assert status == 0, out
