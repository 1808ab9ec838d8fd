"""
Applications that PyInstaller has frozen: they never start themselves as an interpreter, and say
what they lack.
"""

import os
import subprocess
import sys

import pytest

import pythons

PyInstaller = pytest.importorskip('PyInstaller')

pytestmark = [
    # An application has both cores, whichever core runs the tests.
    pytest.mark.once, pytest.mark.slow, pytest.mark.seconds(900),
]

JOBS = '''
import os

def parent():
    return os.getppid()
'''

APPLICATION = '''
import os, sys
with open(os.environ['STARTS'], 'a') as fp:
    fp.write('started\\n')
import mitogen.core, mitogen.master, mitogen.utils
import frozen_jobs

def main(router):
    options = {'python_path': sys.argv[1]} if len(sys.argv) > 1 else {}
    try:
        print(router.local(**options).call(frozen_jobs.parent) == os.getpid())
    except mitogen.core.Error as e:
        print(type(e).__name__, e)

if __name__ == '__main__':
    print(sys.frozen)
    with mitogen.master.Router() as router:
        main(router)
'''

SPEC = '''
from PyInstaller.utils.hooks import collect_submodules

analysis = Analysis(['application.py'], pathex=['.'], hiddenimports=collect_submodules('mitogen'),
                    excludes=['numpy', 'gevent', 'eventlet', 'trio', 'tkinter'],
                    module_collection_mode={'mitogen': 'pyz+py', 'frozen_jobs': 'pyz+py'})
exe = EXE(PYZ(analysis.pure), analysis.scripts, [], exclude_binaries=True, name='application')
COLLECT(exe, analysis.binaries, analysis.datas, name='application')
'''


def freeze(folder):
    """
    Run PyInstaller in a folder. It wants a Python in a shared library: if this one is not, another
    one that is here takes the packages of this one, and its application has the pure core.
    """
    others = ['python3.%d' % minor for minor in range(15, 9, -1)]
    env = dict(os.environ)
    for python in [sys.executable] + [pythons.find_python(name) for name in others if pythons.is_here(name)]:
        out = subprocess.run([python, '-m', 'PyInstaller', '--log-level', 'WARN', 'application.spec'], cwd=str(folder),
                             env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if 'shared library' not in out.stdout:
            break
        env['PYTHONPATH'] = os.path.dirname(os.path.dirname(PyInstaller.__file__))
    assert out.returncode == 0, out.stdout


@pytest.fixture(scope='module')
def application(tmp_path_factory):
    """
    The path of one that has sources inside, as docs/limits.rst says.
    """
    folder = tmp_path_factory.mktemp('frozen')
    (folder / 'frozen_jobs').mkdir()
    for name, text in ('frozen_jobs/__init__.py', JOBS), ('application.py', APPLICATION), ('application.spec', SPEC):
        (folder / name).write_text(text)
    freeze(folder)
    return str(folder / 'dist' / 'application' / 'application')


@pytest.fixture
def start(application, tmp_path):
    """
    A function that runs the application and returns what it prints, by lines, once it has been seen
    to start one time.
    """
    def start(*args):
        starts = tmp_path / 'starts'
        starts.write_text('')
        out = subprocess.run([application] + list(args), env=dict(os.environ, STARTS=str(starts)), stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=300)
        assert starts.read_text() == 'started\n'
        return out.stdout.splitlines()
    return start


def test_an_application_that_names_no_interpreter_is_told_to(start):
    lines = start()
    assert lines[0] == 'True' and 'frozen' in lines[1] and 'python_path' in lines[1]


def test_an_application_with_sources_has_children(start):
    assert start(sys.executable) == ['True', 'True']
