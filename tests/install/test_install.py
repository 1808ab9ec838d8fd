"""
setup.py on machines that lack something: the install succeeds with the pure core and says what is
missing.
"""

import os
import shutil
import subprocess
import sys

import pytest

import places


pytest.importorskip('setuptools')
pytestmark = [
    pytest.mark.once, pytest.mark.seconds(900),
    pytest.mark.skipif(
        sys.version_info < (3, 9) or not os.path.exists(os.path.join(places.ROOT, 'setup.py')),
        reason='needs the source tree and a Python that has the fast core'),
]

REAL_CC = shutil.which('cc') or shutil.which('gcc') or 'cc'


@pytest.fixture
def tree(tmp_path):
    """
    A copy of what the build reads.
    """
    tree = tmp_path / 'tree'
    tree.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'README.rst', 'LICENSE', 'MANIFEST.in'):
        shutil.copy(os.path.join(places.ROOT, name), str(tree / name))
    for name in ('mitogen', '_mitogen_core', 'ansible_collections', 'ansible_mitogen'):
        shutil.copytree(os.path.join(places.ROOT, name), str(tree / name), ignore=shutil.ignore_patterns('build', '__pycache__'))
    return tree


def environ_with(**env):
    """
    Return the environment of a build with these settings, and without those of the person who runs
    the tests: tox has some.
    """
    environ = dict(os.environ)
    for name in ('MITOGEN_PURE', 'MITOGEN_REQUIRE_NATIVE', 'MITOGEN_WERROR', 'PYTHONPATH'):
        environ.pop(name, None)
    environ.update(env)
    return environ


def build(tree, tmp_path, compiler=None, **env):
    """
    Build the tree; return (exit status, everything printed, folder of the result).
    """
    lib = tmp_path / 'lib'
    environ = environ_with(**env)
    if compiler is not None:
        path = tmp_path / 'compiler'
        path.write_text('#!/bin/sh\n' + compiler.replace('CC', REAL_CC))
        path.chmod(0o755)
        environ.update(CC=str(path), LDSHARED=str(path) + ' -shared')
    proc = subprocess.run(
        [sys.executable, 'setup.py', '-q', 'build', '--build-lib', str(lib), '--build-temp', str(tmp_path / 'temp')],
        cwd=str(tree), env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=110,
    )
    return proc.returncode, proc.stdout, lib


def reason(lib):
    namespace = {}
    exec((lib / 'mitogen' / '_build.py').read_text(), namespace)
    return namespace['REASON']


def has_extension(lib):
    return bool(list(lib.glob('_mitogen_core*')))


NO_LIBEV = '''
for arg in "$@"; do
    case $arg in -lev) exit 1;; *.c) grep -q "ev\\.h" "$arg" && exit 1;; esac
done
exec CC "$@"
'''

NO_HEADERS = '''
for arg in "$@"; do
    case $arg in *.c) grep -q "Python\\.h" "$arg" && exit 1;; esac
done
exec CC "$@"
'''

BROKEN = '''
for arg in "$@"; do
    case $arg in *_mitogen_core*.c) echo "deliberately broken" >&2; exit 1;; esac
done
exec CC "$@"
'''


@pytest.mark.parametrize('compiler,words', [
    ('exit 1\n', ['C compiler', 'gcc']),
    (NO_HEADERS, ['Python.h', 'python3-dev']),
    (NO_LIBEV, ['libev', 'libev-dev']),
    (BROKEN, ['failed']),
], ids=['compiler', 'headers', 'libev', 'broken'])
def test_what_is_missing_is_said_and_kept_and_the_build_goes_on(tree, tmp_path, compiler, words):
    status, output, lib = build(tree, tmp_path, compiler)
    assert status == 0, output
    assert not has_extension(lib)
    assert (lib / 'mitogen' / 'core.py').exists()
    for word in words:
        assert word in output
        assert word in reason(lib)


@pytest.mark.parametrize('compiler', ['exit 1\n', NO_LIBEV, BROKEN], ids=['compiler', 'libev', 'broken'])
def test_a_build_that_must_have_the_extension_fails_without(tree, tmp_path, compiler):
    status, output, _ = build(tree, tmp_path, compiler, MITOGEN_REQUIRE_NATIVE='1')
    assert status != 0


def test_a_pure_build_on_demand_asks_no_compiler(tree, tmp_path):
    status, output, lib = build(tree, tmp_path, 'echo called >&2; exit 1\n', MITOGEN_PURE='1')
    assert status == 0, output
    assert 'called' not in output
    assert not has_extension(lib)
    assert 'MITOGEN_PURE' in reason(lib)


def test_the_source_tree_is_left_as_it_was(tree, tmp_path):
    def files():
        return sorted(str(path.relative_to(tree)) for path in tree.rglob('*')
                      if path.is_file() and '__pycache__' not in path.parts)

    before = files()
    assert build(tree, tmp_path, NO_LIBEV)[0] == 0
    assert files() == before


def test_an_extension_of_an_earlier_build_is_not_left_in_a_pure_one(tree, tmp_path):
    import sysconfig
    lib = tmp_path / 'lib'
    lib.mkdir()
    stale = lib / ('_mitogen_core' + sysconfig.get_config_var('EXT_SUFFIX'))
    stale.write_bytes(b'stale')
    os.utime(str(stale), (0, 0))
    assert build(tree, tmp_path, NO_LIBEV)[0] == 0
    assert not stale.exists()


def test_the_version_is_the_packages(tree):
    import mitogen
    output = subprocess.check_output([sys.executable, 'setup.py', '-q', '--version'], cwd=str(tree), text=True,
                                     stderr=subprocess.DEVNULL, env=environ_with(MITOGEN_PURE='1'))
    assert output.strip().split('\n')[-1] == '.'.join(str(part) for part in mitogen.__version__)
