"""
The peers, and an environment of its own for each: a virtual environment that is made when first
needed.
"""

import collections
import hashlib
import json
import os
import shutil
import subprocess
import sys

# api: which function of a program measures it. place: name of its virtual environment. require: the
# requirement for pip, or None. variables: environment of its processes.
Peer = collections.namedtuple('Peer', 'name title api place require variables')

CHECKOUT = object()  # stands for the project itself in Peer.require

# This project has upstream's distribution name with versions from 1 on, so the newest below 1 is
# upstream's newest.
PEERS = collections.OrderedDict((peer.name, peer) for peer in [
    Peer('upstream', 'upstream Mitogen', 'mitogen', 'upstream', 'mitogen<1', {}),
    Peer('ours', 'this project', 'mitogen', 'ours', CHECKOUT, {}),
    Peer('ours-pure', 'this project, pure core', 'mitogen', 'ours', CHECKOUT, {'MITOGEN_CORE': 'pure'}),
    Peer('execnet', 'execnet', 'execnet', 'execnet', 'execnet', {}),
    Peer('multiprocessing', 'multiprocessing', 'multiprocessing', 'multiprocessing', None, {}),
])

PROBES = {
    'mitogen': 'import mitogen.core as c, mitogen as m; '
               'v = ".".join(map(str, m.__version__)); core = getattr(c, "CORE", None)',
    'execnet': 'import execnet; v = execnet.__version__; core = None',
    'multiprocessing': 'import platform; v = platform.python_version(); core = None',
}

# Sources of an installed copy of this project; a change means: install again.
SOURCES = ('setup.py', 'pyproject.toml', 'mitogen', '_mitogen_core')

# Left out of the copy of the checkout that pip builds from: a build must not use or leave anything
# there.
NOT_COPIED = ('.*', 'build', 'dist', '__pycache__', '*.egg-info', '*.so', '*.o', '*.a')


STAMP = 'installed'  # file in an environment that says what pip was asked for


class Unavailable(Exception):
    """A peer cannot be measured; the text says why."""


class Environment(object):
    """
    A peer made ready: python is its interpreter, variables the whole environment of its processes.
    """

    def __init__(self, peer, python, variables):
        self.peer = peer
        self.python = python
        self.variables = variables
        self.version = None


def run(command, failure, **how):
    """
    Run a command and return its output; a failure becomes Unavailable with what tells most of it.
    """
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        universal_newlines=True, **how
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines()
        told = [line.strip() for line in lines if 'error:' in line.lower()] or lines
        raise Unavailable('%s: %s' % (failure, ' | '.join(told[-2:]) or 'exit status %d' % done.returncode))
    return done.stdout


def variables_without_python():
    """Our environment without what would lead a peer to another interpreter, package or core."""
    return dict(
        (name, value) for name, value in os.environ.items()
        if not name.startswith(('PYTHON', 'MITOGEN_', 'VIRTUAL_ENV', '__PYVENV'))
    )


def fingerprint(checkout):
    """A digest of every source file that an installation of the checkout depends on."""
    digest = hashlib.sha256()
    for source in SOURCES:
        path = os.path.join(checkout, source)
        found = [path] if os.path.isfile(path) else [
            os.path.join(folder, name)
            for folder, _, names in os.walk(path)
            for name in names if name.endswith(('.py', '.c', '.h', '.toml'))
        ]
        for name in sorted(found):
            with open(name, 'rb') as source_file:
                digest.update(name.encode() + b'\0' + hashlib.sha256(source_file.read()).digest())
    return digest.hexdigest()


class Builder(object):
    """Makes the environments below one folder.

    root: the folder; python: interpreter they are made from; checkout: the project;
    path_for_ours: a folder to import the project from instead of installing it, or None;
    refresh: ask pip again where it has answered before.
    """

    def __init__(self, root, python, checkout, path_for_ours=None, refresh=False):
        self.root = root
        self.python = python
        self.checkout = checkout
        self.path_for_ours = path_for_ours
        self.refresh = refresh

    def build(self, peer):
        """Return the Environment of peer, made or brought up to date; raises Unavailable."""
        from_path = peer.require is CHECKOUT and self.path_for_ours
        place = peer.place + '-path' if from_path else peer.place
        folder = os.path.join(self.root, '%s-%s' % (place, self._python_tag()))
        python = os.path.join(folder, 'bin', 'python')
        variables = dict(variables_without_python(), **peer.variables)

        with_pip = peer.require is not None and not from_path
        if not os.path.exists(python):
            command = [self.python, '-m', 'venv'] + ([] if with_pip else ['--without-pip']) + [folder]
            run(command, 'no virtual environment', env=variables_without_python())
        if from_path:
            variables['PYTHONPATH'] = os.path.abspath(self.path_for_ours)
        elif with_pip:
            self._install(peer, folder, python)

        environment = Environment(peer, python, variables)
        try:
            self._probe(environment)
        except Unavailable:
            # The missing thing may be there next time: a library, a compiler.
            if with_pip:
                os.unlink(os.path.join(folder, STAMP))
            raise
        return environment

    def _python_tag(self):
        command = [self.python, '-c', 'import sys; print("%d.%d" % sys.version_info[:2] + getattr(sys, "abiflags", ""))']
        return run(command, 'no such Python').strip()

    def _install(self, peer, folder, python):
        """Ask pip for what the peer needs, unless it has been given just that before."""
        ours = peer.require is CHECKOUT
        wanted = fingerprint(self.checkout) if ours else peer.require
        stamp = os.path.join(folder, STAMP)
        if not self.refresh and os.path.exists(stamp):
            with open(stamp) as written:
                if written.read() == wanted:
                    return
        command = [python, '-m', 'pip', 'install', '--disable-pip-version-check', '--quiet']
        if ours:
            if not os.path.exists(os.path.join(self.checkout, 'setup.py')):
                raise Unavailable('there is no setup.py in the checkout')
            source = os.path.join(folder, 'source')
            shutil.rmtree(source, ignore_errors=True)
            shutil.copytree(self.checkout, source, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
            command += ['--no-deps', '--force-reinstall', source]
        else:
            command += ['--upgrade', peer.require]
        run(command, 'pip install failed', env=variables_without_python(), cwd=folder)
        with open(stamp, 'w') as written:
            written.write(wanted)

    def _probe(self, environment):
        """Find out the version, and that it is the peer it is meant to be."""
        peer = environment.peer
        code = 'import json; %s; print(json.dumps([v, core]))' % (PROBES[peer.api],)
        answer = run([environment.python, '-c', code], 'cannot be imported', env=environment.variables, cwd=self.root)
        version, core = json.loads(answer.strip().splitlines()[-1])
        environment.version = version
        wanted = {'ours': 'native', 'ours-pure': 'pure', 'upstream': None}
        if peer.name in wanted and core != wanted[peer.name]:
            raise Unavailable('the core in use is %s; `python -m mitogen` there says why' % (core,))


def build_all(names, builder, say):
    """Build each named peer; returns ({name: Environment}, {name: why it is unavailable})."""
    ready, missing = collections.OrderedDict(), collections.OrderedDict()
    for name in names:
        try:
            ready[name] = builder.build(PEERS[name])
            say('%s: %s' % (name, ready[name].version))
        except (Unavailable, OSError) as why:
            # Results may be published, and this checkout's place on the disk is nobody's business.
            missing[name] = str(why).replace(builder.checkout, '.')
            say('%s: not measured: %s' % (name, missing[name]))
    return ready, missing


def default_python():
    """
    The interpreter that environments are made from: the one a virtual environment of ours stands
    on, if any.
    """
    return os.path.realpath(sys.executable) if sys.prefix != sys.base_prefix else sys.executable
