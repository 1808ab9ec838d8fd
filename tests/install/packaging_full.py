"""
Everything that is uploaded, on every interpreter of this machine, and beside what people have
installed already. Run by "make test-packaging"; it takes minutes, and fetches upstream's release
and ansible-core with pip.
"""

import glob
import os
import re
import sys
import zipfile

import pytest

import mitogen
import packages
import places
import pythons

VERSION = '.'.join(str(part) for part in mitogen.__version__)
UPSTREAM = '0.3.54'
NATIVE = [name for name in pythons.NAMES if name.startswith('python3.') and int(name[8:]) >= 9]

pytestmark = pytest.mark.seconds(900)


@pytest.fixture(scope='session')
def built(tmp_path_factory):
    """
    The folder of all that "make wheels" builds. MITOGEN_TEST_DIST names one that has been built
    before.
    """
    folder = os.environ.get('MITOGEN_TEST_DIST')
    if not folder:
        folder = str(tmp_path_factory.mktemp('dist'))
        packages.run([sys.executable, os.path.join(places.ROOT, 'tools', 'wheels.py'), '--out', folder], folder)
    return folder


def wheel_for(built, python):
    tag = 'cp' + python[len('python'):].replace('.', '')
    path, = glob.glob(os.path.join(built, 'mitogen-%s-%s-%s-*.whl' % (VERSION, tag, tag)))
    return path


def pure_wheel(built):
    return os.path.join(built, 'mitogen-%s-py2.py3-none-any.whl' % (VERSION,))


def check(found, core):
    assert found['version'] == VERSION
    assert (found['core'], found['child_core']) == (core, core)
    assert found['child'] and found['grandchild'] and found['typed']


@pytest.mark.parametrize('name', NATIVE)
def test_the_wheel_of_an_interpreter(built, name, tmp_path):
    python = pythons.find_python(name)
    wheel = wheel_for(built, name)
    assert re.search(r'-manylinux_2_\d+_|-macosx_', os.path.basename(wheel)), wheel
    environment = packages.Environment(tmp_path / 'env', python)
    environment.install('--no-index', '--no-deps', wheel)
    found = environment.describe()
    check(found, 'native')
    # libev is the wheel's own.
    assert len(found['libev']) == 1 and found['libev'][0].startswith(environment.folder), found


@pytest.mark.parametrize('name', pythons.NAMES)
def test_the_pure_wheel_on_every_python(built, name, tmp_path):
    python = pythons.find_python(name)
    # Old Pythons have no venv, or a pip of their time.
    target = str(tmp_path / 'target')
    packages.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-index', '--no-deps', '--target', target, pure_wheel(built)],
                 tmp_path)
    script = tmp_path / 'describe.py'
    script.write_text(packages.PROGRAM)
    out = packages.run([python, str(script)], tmp_path, PYTHONPATH=target)
    check(packages.json.loads(out.splitlines()[-1]), 'pure')


def test_pip_takes_the_wheel_with_the_extension_where_it_fits(built, tmp_path):
    environment = packages.Environment(tmp_path / 'env')
    environment.install('--no-index', '--pre', '--find-links', built, 'mitogen')
    check(environment.describe(), 'native')


def test_the_sdist_by_pip_alone(built, tmp_path):
    """
    Nothing is there but what pip fetches to build with.
    """
    environment = packages.Environment(tmp_path / 'env')
    environment.install('--no-binary', 'mitogen', '--no-deps',
                        os.path.join(built, 'mitogen-%s.tar.gz' % VERSION), MITOGEN_REQUIRE_NATIVE='1')
    check(environment.describe(), 'native')


@pytest.mark.parametrize('pure', [False, True], ids=['native', 'pure'])
def test_on_top_of_upstream(built, pure, tmp_path):
    """
    Upstream's files are gone afterwards, so nothing of it can be imported by mistake.
    """
    environment = packages.Environment(tmp_path / 'env')
    environment.install('mitogen==' + UPSTREAM)
    site, = glob.glob(os.path.join(environment.folder, 'lib', 'python*', 'site-packages'))
    before = set(os.listdir(os.path.join(site, 'mitogen')))
    assert os.path.isdir(os.path.join(site, 'ansible_mitogen'))
    wheel = pure_wheel(built) if pure else wheel_for(built, 'python%d.%d' % sys.version_info[:2])
    environment.install('--no-index', '--no-deps', wheel)
    check(environment.describe(), 'pure' if pure else 'native')
    after = set(os.listdir(os.path.join(site, 'mitogen')))
    ours = set(os.listdir(os.path.join(places.ROOT, 'mitogen'))) | {'_build.py', '_core_texts.py', '__pycache__'}
    assert after <= ours, sorted(after - ours)
    assert os.listdir(os.path.join(site, 'ansible_mitogen', 'plugins')) == ['strategy']
    assert not os.path.exists(os.path.join(site, 'ansible_mitogen', 'strategy.py'))
    assert before - after or before <= ours
    # Upstream's replaces ours in turn.
    environment.install('--force-reinstall', 'mitogen==' + UPSTREAM)
    out = packages.run([environment.python, '-c', 'import mitogen; print(mitogen.__version__)'], tmp_path)
    assert out.strip() == repr(tuple(int(part) for part in UPSTREAM.split('.')))


PLAYBOOK = '''
- hosts: localhost
  gather_facts: false
  connection: local
  tasks:
    - command: echo through a module
      register: said
    - assert: {that: said.stdout == "through a module"}
    - setup: {gather_subset: "!all,min"}
    - assert: {that: ansible_facts.python.version.major == 3}
'''


def test_in_an_environment_with_ansible_core(built, tmp_path):
    """
    As README.rst says.
    """
    readme = open(os.path.join(places.ROOT, 'README.rst')).read()
    core = {9: '2.15', 10: '2.17', 11: '2.19'}.get(sys.version_info[1], '2.21')
    environment = packages.Environment(tmp_path / 'env')
    environment.install('ansible-core==%s.*' % core)
    environment.install('--no-index', '--no-deps', wheel_for(built, 'python%d.%d' % sys.version_info[:2]))
    check(environment.describe(), 'native')

    assert '$ mitogen ansible-playbook site.yml\n' in readme
    (tmp_path / 'play.yml').write_text(PLAYBOOK)
    out = packages.run(
        [os.path.join(environment.folder, 'bin', 'mitogen'), 'ansible-playbook', '-v', 'play.yml'], tmp_path,
        ANSIBLE_HOME=str(tmp_path), ANSIBLE_LOCALHOST_WARNING='0')
    assert 'mitogen: connections are fast, on the native core' in out
    assert re.search(r'localhost +: ok=4 +changed=1 +unreachable=0 +failed=0', out), out


def test_a_second_build_gives_the_same_files(built, tmp_path):
    tree = packages.tool().unpack(os.path.join(built, 'mitogen-%s.tar.gz' % VERSION), str(tmp_path / 'tree'))
    out = tmp_path / 'out'
    packages.run([sys.executable, os.path.join(tree, 'tools', 'wheels.py'), '--out', str(out), '--python', sys.executable],
                 tmp_path)
    names = sorted(os.listdir(str(out)))
    assert len(names) == 3
    for name in names:
        with open(os.path.join(built, name), 'rb') as first, open(str(out / name), 'rb') as second:
            assert first.read() == second.read(), name


def test_the_files_are_fit_to_be_uploaded(built, tmp_path):
    files = sorted(glob.glob(os.path.join(built, '*')))
    packages.run([sys.executable, '-m', 'twine', 'check', '--strict'] + files, tmp_path)
    # W002: stubs of modules with the same interface. W009, W010: the folders for Ansible, and the
    # library of libev.
    packages.run([sys.executable, '-m', 'check_wheel_contents', '--ignore', 'W002,W009,W010'] +
                 [path for path in files if path.endswith('.whl')], tmp_path)


def test_an_extension_is_stripped_and_its_libraries_are_listed(built):
    for path in glob.glob(os.path.join(built, '*linux*.whl')):
        with zipfile.ZipFile(path) as wheel:
            extension, = [name for name in wheel.namelist() if name.startswith('_mitogen_core')]
            assert b'.symtab\0' not in wheel.read(extension), path
            listed, = [name for name in wheel.namelist() if '/sboms/' in name and name.endswith('.json')]
            assert b'libev' in wheel.read(listed), path


def test_the_usual_command_builds_an_sdist_and_a_wheel(built, tmp_path):
    tree = packages.tool().unpack(os.path.join(built, 'mitogen-%s.tar.gz' % VERSION), str(tmp_path / 'tree'))
    packages.run([sys.executable, '-m', 'build', '--outdir', str(tmp_path / 'out'), tree], tmp_path, MITOGEN_REQUIRE_NATIVE='1')
    assert len(os.listdir(str(tmp_path / 'out'))) == 2
