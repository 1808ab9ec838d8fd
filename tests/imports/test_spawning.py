"""
Processes that multiprocessing starts in a child, by other means than fork, have the modules that
came from the master.
"""

import subprocess
import sys

import pytest

import pythons
import testlib

MODULES = {
    'spw_jobs.py': 'import spw_pkg.deep, multiprocessing\n'
                   'def double(x):\n    return 2 * x\n'
                   'def deep(x):\n    return spw_pkg.deep.add(x), spw_pkg.deep.__file__.startswith("master:")\n'
                   'def run(method, name, args):\n'
                   '    pool = multiprocessing.get_context(method).Pool(1)\n'
                   '    try:\n        return pool.map(globals()[name], args)\n'
                   '    finally:\n        pool.terminate()\n        pool.join()\n',
    'spw_pkg/__init__.py': '', 'spw_pkg/deep.py': 'def add(x):\n    return x + 1\n',
}

ASK = "(__import__('spw_jobs'), __import__('sys').modules['spw_jobs'].run(%r, %r, %r))[1]"


@pytest.fixture
def modules(tmp_path, monkeypatch):
    testlib.write_files(tmp_path, MODULES)
    monkeypatch.syspath_prepend(str(tmp_path))


# None is the default of that Python, which is forkserver from 3.14 on.
@pytest.mark.parametrize('method', ['spawn', 'forkserver', None])
@pytest.mark.parametrize('python', ['own'] + [name for name in pythons.NAMES[-3:] if pythons.is_here(name)])
def test_a_process_has_the_modules_of_the_child(router, modules, python, method):
    path = sys.executable if python == 'own' else pythons.find_python(python)
    child = router.local(python_path=['/usr/bin/env', path])
    assert child.call(eval, ASK % (method, 'double', [1, 2])) == [2, 4]
    (number, is_from_master), = child.call(eval, ASK % (method, 'deep', [1]))
    # A fork has what the child has.
    assert number == 2 and (method is None or not is_from_master)
    # The child does not ask for the main program because of it.
    assert child.call(eval, "'__main__' in __import__('sys').modules") is False


PROGRAM = '''
import mitogen.master

def double(x):
    return 2 * x

def run(method):
    import multiprocessing
    pool = multiprocessing.get_context(method).Pool(1)
    try:
        return pool.map(double, [1, 2])
    finally:
        pool.terminate()
        pool.join()

if __name__ == '__main__':
    with mitogen.master.Router() as router:
        child = router.local()
        print(child.call(run, 'spawn'), child.call(run, 'forkserver'), child.call(run, None))
'''


def test_so_it_has_the_main_program(tmp_path):
    (tmp_path / 'program.py').write_text(PROGRAM)
    out = subprocess.run([sys.executable, str(tmp_path / 'program.py')], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, timeout=60)
    assert out.stdout == '[2, 4] [2, 4] [2, 4]\n'
