"""
Environments to run ansible-playbook in. Each is a virtual environment below `.venv-ansible` of the
checkout, made once and kept until what it is made of changes:

``ours``
    ansible-core, our package as it is installed where this runs, and, beside them, the folder
    `ansible_mitogen` of upstream's release: Ansible's side of it, on our package.
``upstream``
    ansible-core and upstream's release as it is; for benchmarks.

Run as a program it makes those that are named and prints their folders; with ``--releases`` it
prints the releases of ansible-core to test with.
"""

import contextlib
import fcntl
import glob
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

#: Whose `ansible_mitogen` is used.
UPSTREAM = os.environ.get('MITOGEN_TEST_UPSTREAM', '0.3.54')

#: The package that makes connections to network devices.
LIBSSH = 'ansible-pylibssh'

#: The newest ansible-core that this release of `ansible_mitogen` knows, for each Python that can be
#: a controller.
CORES = {
    (3, 9): '>=2.15,<2.16',
    (3, 10): '>=2.17,<2.18',
    (3, 11): '>=2.19,<2.20',
    (3, 12): '>=2.21,<2.22',
    (3, 13): '>=2.21,<2.22',
    (3, 14): '>=2.21,<2.22',
}


#: Releases of ansible-core, each with the first and the last Python that can be its controller.
RELEASES = [
    ('~=2.16.0', (3, 10), (3, 12)),
    ('~=2.17.0', (3, 10), (3, 12)),
    ('~=2.18.0', (3, 11), (3, 13)),
    ('~=2.19.0', (3, 11), (3, 13)),
    ('~=2.20.0', (3, 12), (3, 14)),
    ('~=2.21.0', (3, 12), (3, 14)),
    ('2.22.0rc1', (3, 12), (3, 14)),
]


def releases():
    """
    Return those that can be installed for this Python, the oldest one first.
    """
    return [release for release, first, last in RELEASES if first <= sys.version_info[:2] <= last]


class EnvironmentError_(Exception):
    """
    An environment cannot be made; the text says why.
    """


def core_requirement():
    wanted = os.environ.get('MITOGEN_TEST_ANSIBLE_CORE') or CORES.get(sys.version_info[:2])
    if wanted is None:
        raise EnvironmentError_('no ansible-core is known to be for Python %d.%d; there are some for %s' % (
            sys.version_info[:2] + (', '.join('%d.%d' % version for version in sorted(CORES)),)))
    return 'ansible-core' + (wanted if wanted[0] in '<>=~' else '==' + wanted)


class Environment(object):
    """
    :ivar folder: of the virtual environment.
    :ivar packages: folder of installed packages.
    :ivar upstream: folder with upstream's `ansible_mitogen`.
    """

    def __init__(self, kind):
        self.kind = kind
        self.base = os.path.join(ROOT, '.venv-ansible')
        version = re.sub(r'[^\w.]', '', os.environ.get('MITOGEN_TEST_ANSIBLE_CORE', ''))
        self.folder = os.path.join(self.base, '%s%s-py%d.%d' % ((kind, version) + sys.version_info[:2]))
        self.python = self.path('bin', 'python')
        self.playbook = self.path('bin', 'ansible-playbook')

    def path(self, *names):
        return os.path.join(self.folder, *names)

    @property
    def packages(self):
        return self.path('lib', 'python%d.%d' % sys.version_info[:2], 'site-packages')

    @property
    def upstream(self):
        return self.path('upstream') if self.kind == 'ours' else self.packages

    def run(self, *args, **env):
        environ = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK='1', **env)
        for name in ('PYTHONPATH', 'PYTHONHOME', 'MITOGEN_PURE'):
            environ.pop(name, None)
        done = subprocess.run(
            args, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise EnvironmentError_('%s failed with status %d. Packages come from PyPI, or from where pip is told to '
                                    'look. Its output:\n%s' % (' '.join(args), done.returncode, done.stdout))
        return done.stdout

    def pip(self, *args, **env):
        # Ours: another copy in each environment would take seconds.
        return self.run(sys.executable, '-m', 'pip', '--python', self.python, *args, **env)

    def make(self):
        os.makedirs(self.base, exist_ok=True)
        with locked(os.path.join(self.base, 'lock')):
            self.part('ansible', '\n'.join([sys.version, core_requirement(), UPSTREAM, LIBSSH]), self.make_ansible)
            if self.kind == 'ours':
                self.part('mitogen', fingerprint(), self.install_ours)
        return self

    def part(self, name, stamp, make):
        """
        Call `make` unless it was called with the same stamp.
        """
        path = self.path(name + '.made')
        with contextlib.suppress(FileNotFoundError), open(path) as fp:
            if fp.read() == stamp:
                return
        make()
        with open(path, 'w') as fp:
            fp.write(stamp)

    def make_ansible(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.run(sys.executable, '-m', 'venv', '--without-pip', self.folder)
        release = 'mitogen==' + UPSTREAM
        if self.kind == 'upstream':
            self.pip('install', '-q', core_requirement(), release)
            return
        self.pip('install', '-q', core_requirement(), LIBSSH)
        with tempfile.TemporaryDirectory() as folder:
            self.pip('download', '-q', '--no-deps', '--only-binary', ':all:', '-d', folder, release)
            wheel, = glob.glob(os.path.join(folder, '*.whl'))
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.startswith('ansible_mitogen/'):
                        archive.extract(name, self.path('upstream'))

    def install_ours(self):
        """
        Copy what is installed here: the tests are about that, and it need not be compiled once
        more.
        """
        for name in os.listdir(self.packages):
            if re.match(r'(mitogen|mitogen-.*|_mitogen_core.*|ansible_mitogen|ansible_collections)$', name):
                path = os.path.join(self.packages, name)
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        for file in installed_files():
            target = os.path.join(self.packages, str(file))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(str(file.locate()), target)

    def version(self, module):
        code = 'import %s as m; v = m.__version__; print(v if isinstance(v, str) else ".".join(map(str, v)))' % module
        return self.run(self.python, '-c', code).strip()


#: Collections that are taken from the distribution `ansible`, which is large.
COLLECTIONS = (
    'ansible/netcommon/', 'ansible/posix/', 'ansible/utils/', 'community/docker/', 'community/general/meta/', 'community/general/plugins/connection/',
    'community/general/plugins/module_utils/', 'containers/podman/', 'kubernetes/core/')


def collections():
    """
    Return a folder with collections for containers, made when it is first asked for.
    """
    base = os.path.join(ROOT, '.venv-ansible')
    digest = hashlib.sha1(repr(COLLECTIONS).encode()).hexdigest()[:8]
    folder = os.path.join(base, 'collections-%s-py%d.%d' % ((digest,) + sys.version_info[:2]))
    os.makedirs(base, exist_ok=True)
    with locked(os.path.join(base, 'lock')):
        if not os.path.isdir(folder):
            with tempfile.TemporaryDirectory(dir=base) as temporary:
                Environment('ours').pip('download', '-q', '--no-deps', '--only-binary', ':all:', '-d', temporary, 'ansible')
                wheel, = glob.glob(os.path.join(temporary, '*.whl'))
                with zipfile.ZipFile(wheel) as archive:
                    prefixes = tuple('ansible_collections/%s' % name for name in COLLECTIONS)
                    archive.extractall(temporary, [name for name in archive.namelist() if name.startswith(prefixes)])
                os.mkdir(folder)
                os.rename(os.path.join(temporary, 'ansible_collections'), os.path.join(folder, 'ansible_collections'))
    return folder


@contextlib.contextmanager
def locked(path):
    with open(path, 'w') as fp:
        fcntl.flock(fp, fcntl.LOCK_EX)
        yield


def installed_files():
    # A program's first line names an interpreter, and not that of the environment.
    files = [file for file in importlib.metadata.files('mitogen') if '..' not in file.parts]
    if not [file for file in files if file.name.startswith('_mitogen_core')]:
        raise EnvironmentError_('mitogen is installed in %s without its extension' % (sys.prefix,))
    return files


def fingerprint():
    digest = hashlib.sha256()
    for file in sorted(installed_files(), key=str):
        if file.suffix != '.pyc':
            digest.update(str(file).encode() + b'\0' + hashlib.sha256(file.read_binary()).digest())
    return digest.hexdigest()


if __name__ == '__main__':
    if sys.argv[1:] == ['--releases']:
        print(' '.join(releases()))
        sys.exit()
    for kind in sys.argv[1:] or ['ours']:
        print(Environment(kind).make().folder)
