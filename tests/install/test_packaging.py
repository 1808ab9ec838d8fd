"""
The files that are uploaded: the sdist has all that a build needs, and each kind of wheel works
where nothing else is. Every interpreter, libev inside, upstream and Ansible:
tests/install/packaging_full.py ("make test-packaging").
"""

import glob
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

import mitogen
import packages
import places

VERSION = '.'.join(str(part) for part in mitogen.__version__)

setuptools = pytest.importorskip('setuptools')
pytestmark = [
    # A wheel has both cores, whichever core runs the tests. One with the extension is built for the
    # first test that wants it.
    pytest.mark.once, pytest.mark.seconds(900),
    pytest.mark.skipif(not os.path.exists(os.path.join(places.ROOT, 'tools', 'wheels.py')), reason='needs the source tree'),
]


@pytest.fixture(scope='module')
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sdist')
    return packages.tool().make_sdist(str(folder), str(tmp_path_factory.mktemp('work')))


@pytest.fixture(scope='module')
def pure_wheel(sdist, tmp_path_factory):
    return packages.tool().make_pure(sdist, str(tmp_path_factory.mktemp('pure')), str(tmp_path_factory.mktemp('work')))


@pytest.fixture(scope='module')
def native_wheel(sdist, tmp_path_factory):
    """
    Built from the unpacked sdist, far from the checkout. libev is the system's.
    """
    folder = tmp_path_factory.mktemp('native')
    tree = packages.tool().unpack(sdist, str(folder / 'tree'))
    # How fast it is is not asked here, and the optimizer takes most of the time. Nobody debugs it
    # either.
    compiler = folder / 'compiler'
    compiler.write_text('#!/bin/sh\nexec %s "$@" -O0 -g0\n' % (os.environ.get('CC') or sysconfig.get_config_var('CC') or 'cc'))
    compiler.chmod(0o755)
    packages.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(folder), tree],
                 folder, MITOGEN_REQUIRE_NATIVE='1', CC=str(compiler))
    path, = glob.glob(str(folder / '*.whl'))
    return path


def environment_with(wheel, folder):
    environment = packages.Environment(folder / 'env')
    environment.install('--no-index', '--no-deps', wheel)
    return environment


@pytest.fixture(scope='module')
def native_environment(native_wheel, tmp_path_factory):
    """
    A clean one with the wheel that has the extension. A test that changes it puts it right.
    """
    return environment_with(native_wheel, tmp_path_factory.mktemp('with-extension'))


@pytest.fixture(scope='module')
def pure_environment(pure_wheel, tmp_path_factory):
    """
    A clean one with the pure wheel. A test that changes it puts it right.
    """
    return environment_with(pure_wheel, tmp_path_factory.mktemp('without'))


def check(found, core):
    assert found['version'] == VERSION
    assert (found['core'], found['child_core']) == (core, core)
    assert found['child'] and found['grandchild'] and found['typed']


def test_a_wheel_with_the_extension_in_a_clean_environment(native_wheel, native_environment):
    name = os.path.basename(native_wheel)
    assert name.startswith('mitogen-%s-cp3%d-cp3%d' % (VERSION, sys.version_info[1], sys.version_info[1])), name
    found = native_environment.describe()
    check(found, 'native')
    assert found['file'].startswith(native_environment.folder)
    assert 'core    native' in native_environment.report()


def test_a_wheel_names_its_licence_as_an_spdx_expression(pure_wheel):
    with zipfile.ZipFile(pure_wheel) as wheel:
        metadata, = [wheel.read(name) for name in wheel.namelist() if name.endswith('.dist-info/METADATA')]
    expression = int(setuptools.__version__.split('.')[0]) >= 77
    assert (b'\nLicense-Expression: BSD-3-Clause\n' if expression else b'\nLicense: BSD-3-Clause\n') in metadata


def test_two_sdists_of_the_same_sources_are_the_same(sdist, tmp_path):
    again = packages.tool().make_sdist(str(tmp_path), str(tmp_path / 'work'))
    with open(sdist, 'rb') as first, open(again, 'rb') as second:
        assert first.read() == second.read()


def test_the_pure_wheel_in_a_clean_environment(pure_wheel, pure_environment):
    assert os.path.basename(pure_wheel) == 'mitogen-%s-py2.py3-none-any.whl' % VERSION
    check(pure_environment.describe(), 'pure')
    report = pure_environment.report()
    assert 'core    pure' in report
    assert 'MITOGEN_PURE was set when the package was built' in ' '.join(report.split())


def test_one_kind_of_wheel_over_the_other(native_wheel, pure_wheel, pure_environment):
    for wheel, core in ((native_wheel, 'native'), (pure_wheel, 'pure')):
        pure_environment.install('--no-index', '--no-deps', '--force-reinstall', wheel)
        check(pure_environment.describe(), core)


def test_an_extension_left_behind_by_another_version(native_environment):
    """
    The extension of one release and the package of another, as a broken upgrade leaves them.
    """
    environment = native_environment
    package, = glob.glob(os.path.join(environment.folder, 'lib', 'python*', 'site-packages', 'mitogen'))
    init = os.path.join(package, '__init__.py')
    with open(init) as fp:
        text = fp.read()
    program = 'import mitogen.core, mitogen.master; print(mitogen.core.CORE)'
    try:
        with open(init, 'w') as fp:
            fp.write(text.replace("'dev0')", "'dev99')"))
        out = packages.run([environment.python, '-c', program], environment.cwd)
    finally:
        with open(init, 'w') as fp:
            fp.write(text)
    assert out.splitlines()[-1] == 'pure'
    assert out.count('RuntimeWarning:') == 1
    assert VERSION in out and VERSION.replace('dev0', 'dev99') in out


def test_every_file_of_the_package_is_in_every_wheel(native_wheel, pure_wheel):
    folder = os.path.join(places.ROOT, 'mitogen')
    wanted = set('mitogen/' + name for name in os.listdir(folder)
                 if name.endswith(('.py', '.pyi')) or name == 'py.typed')
    for root in 'mitogen/ansible', 'ansible_collections', 'ansible_mitogen':
        for base, _, files in os.walk(os.path.join(places.ROOT, root)):
            wanted.update(os.path.relpath(os.path.join(base, name), places.ROOT) for name in files if not name.endswith('.pyc'))
    wanted.remove('mitogen/_house.py')  # it joins the parts when a wheel is built, and is not installed
    for wheel in (native_wheel, pure_wheel):
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        assert wanted <= names
        assert 'mitogen/_house.py' not in names
        assert [name for name in names if name.startswith(('tests/', 'docs/', '_mitogen_core/'))] == []
        assert bool([name for name in names if name.startswith('_mitogen_core')]) == (wheel == native_wheel)


def tracked():
    """
    Return the names of the files of the project: those that git has, or without git, those that a
    build may read.
    """
    try:
        out = subprocess.check_output(['git', 'ls-files', '-z'], cwd=places.ROOT, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        found = set()
        for base, folders, names in os.walk(places.ROOT):
            left = packages.tool().LEAVE(base, folders + names)
            folders[:] = [name for name in folders if name not in left]
            found.update(os.path.relpath(os.path.join(base, name), places.ROOT) for name in names if name not in left)
        return found
    names = out.decode().split('\0')
    return set(name for name in names if name and os.path.lexists(os.path.join(places.ROOT, name)))


def test_the_sdist_has_the_whole_project(sdist, tmp_path):
    tree = packages.tool().unpack(sdist, str(tmp_path))
    missing = sorted(name for name in tracked() if not os.path.lexists(os.path.join(tree, name)) and name != '.gitignore')
    assert missing == []


def test_the_sdist_has_headers_tests_and_examples(sdist):
    with tarfile.open(sdist) as tar:
        names = set(name.split('/', 1)[-1] for name in tar.getnames())
    for path in ('LICENSE', 'README.rst', 'Makefile', 'setup.py', 'pyproject.toml', 'tox.ini', 'mitogen/core.py',
                 'tests/conftest.py', 'tests/requirements.txt', 'examples/demo.py', 'tools/setup', '.ci/run',
                 '_mitogen_core/engine/Makefile', '.clang-format'):
        assert path in names
    for pattern in ('_mitogen_core/engine/*/*.h', '_mitogen_core/engine/*/*.c', '_mitogen_core/*.h', '_mitogen_core/*.c',
                    'examples/demo_pkg/*.py', '_mitogen_core/engine/test/corpus/frame/*'):
        found = [os.path.relpath(p, places.ROOT) for p in glob.glob(os.path.join(places.ROOT, pattern))]
        assert found, pattern
        assert not set(found) - names
