"""
Throw-away users, and the configuration of the tools that change the user. All of it belongs to this
process and is removed again. The next run removes all that a killed run has left.
"""

import contextlib
import fcntl
import itertools
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

import testlib

PREFIX = 'mitogen-t'
DOAS_CONF = '/etc/doas.conf'

#: Where administrators' programs are, which the PATH of others may lack.
PATH = os.pathsep.join([os.environ.get('PATH', os.defpath), '/usr/local/sbin', '/usr/sbin', '/sbin'])


def need_root():
    """
    Skip the test unless we may make users.
    """
    if os.geteuid() != 0:
        pytest.skip('only root can make the users that this is tested with; run the tests as root')


def need_program(name, package):
    """
    Return the path of a program; fail if it is not there.
    """
    path = shutil.which(name, path=PATH)
    if path is None:
        pytest.fail('%s is missing; install the package %s (its name in Debian), or run the tests by "make test", '
                    'which does' % (name, package), pytrace=False)
    return path


def need_namespaces():
    """
    Return the path of unshare. In a chroot, and in most containers, nobody may make a namespace of
    mounts.
    """
    unshare = need_program('unshare', 'util-linux')
    probe = subprocess.run([unshare, '--mount', 'true'], stderr=subprocess.PIPE)
    if probe.returncode:
        pytest.skip('this system lets not even root make namespaces: %s' % probe.stderr.decode())
    return unshare


def run(*args, **kwargs):
    """
    Run a program; an AssertionError with its output if it fails.
    """
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)
    assert done.returncode == 0, '%s: %s' % (' '.join(args), done.stdout.decode('utf-8', 'replace'))


@contextlib.contextmanager
def etc_locked():
    """
    Only one run of the tests at a time changes files below /etc.
    """
    fd = os.open('/etc', os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def is_stale(name):
    """
    Return whether a name is that of a user, or a file, of a run that is gone.
    """
    match = re.match(PREFIX + r'(\d+)(-\d+)?$', name)
    return bool(match) and not testlib.is_running(int(match.group(1)))


def processes_of(uid):
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                if os.stat('/proc/' + name).st_uid == uid and testlib.is_running(int(name)):
                    found.append(int(name))
            except OSError:
                pass
    return found


def remove_user(name):
    for pid in processes_of(pwd.getpwnam(name).pw_uid):
        testlib.send_signal(pid, signal.SIGKILL)
    # -f: though its processes may take a moment to go.
    run(need_program('userdel', 'passwd'), '-f', name)
    for path in '/var/lib/sudo/lectured/' + name, '/run/sudo/ts/' + name, '/var/mail/' + name:
        if os.path.exists(path):
            os.unlink(path)


class Account(object):
    """
    A user that exists until `close`.

    :ivar password: known to nobody else.
    :ivar uid: its number; `gid` that of its own group. It is in the group games, too.
    :ivar python: an interpreter that it may run.
    :ivar folder: of root's, readable by all, removed with the user; `home` is in it.
    """
    count = 0

    def __init__(self):
        Account.count += 1
        self.name = '%s%d-%d' % (PREFIX, os.getpid(), Account.count)
        self.password = secrets.token_hex(10)
        self.folder = tempfile.mkdtemp(prefix=PREFIX)
        os.chmod(self.folder, 0o755)
        self.home = os.path.join(self.folder, 'home')
        try:
            with etc_locked():
                for entry in pwd.getpwall():
                    if is_stale(entry.pw_name):
                        remove_user(entry.pw_name)
                run(need_program('useradd', 'passwd'), '-M', '-d', self.home, '-s', '/bin/sh', '-U', '-G', 'games',
                    self.name)
                run(need_program('chpasswd', 'passwd'), input=('%s:%s' % (self.name, self.password)).encode())
            self.uid = pwd.getpwnam(self.name).pw_uid
            self.gid = pwd.getpwnam(self.name).pw_gid
            os.mkdir(self.home)
            os.chown(self.home, self.uid, self.gid)
            self.python = self.find_python()
        except BaseException:
            self.close()
            raise

    def find_python(self):
        # Ours may be in a home directory that is closed to others.
        for path in sys.executable, '/usr/bin/python3', '/usr/local/bin/python3':
            try:
                subprocess.check_call(
                    [path, '-c', 'import zlib'], user=self.uid, group=self.gid, extra_groups=[], cwd='/',
                    stderr=subprocess.DEVNULL)
                return path
            except (OSError, subprocess.CalledProcessError):
                pass
        pytest.fail('there is no Python that every user may run; install the package python3', pytrace=False)

    def close(self):
        shutil.rmtree(self.folder)
        with etc_locked():
            if self.name in [entry.pw_name for entry in pwd.getpwall()]:
                remove_user(self.name)

    def script(self, name, text):
        """
        Make an executable shell script in the folder and return its path.
        """
        path = os.path.join(self.folder, name)
        with open(path, 'w') as fp:
            fp.write('#!/bin/sh\n' + text)
        os.chmod(path, 0o755)
        return path

    def as_user(self, path, uid=None):
        """
        Return the path of a script that runs a program as this user, or as another.
        """
        uid = self.uid if uid is None else uid
        setpriv = need_program('setpriv', 'util-linux')
        return self.script(
            '%s-as-%d' % (os.path.basename(path), uid),
            'exec %s --reuid=%d --regid=%d --clear-groups -- %s "$@"\n' % (setpriv, uid, uid, path))


@pytest.fixture(scope='module')
def account():
    """
    A user, for the tests of one file.
    """
    need_root()
    account = Account()
    yield account
    account.close()


#: Numbers the files of this process: a test has its rules while those of the session stand.
counter = itertools.count(1)


@contextlib.contextmanager
def sudoers(text):
    """
    More rules for sudo, for the length of a block.
    """
    folder = '/etc/sudoers.d'
    path = os.path.join(folder, '%s%d-%d' % (PREFIX, os.getpid(), next(counter)))
    with etc_locked():
        for name in os.listdir(folder):
            if is_stale(name):
                os.unlink(os.path.join(folder, name))
        # Never there without its mode and its text: others use sudo, too.
        fd = os.open(path + '.new', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o440)
        with os.fdopen(fd, 'w') as fp:
            fp.write(text)
        os.rename(path + '.new', path)
    try:
        yield
    finally:
        os.unlink(path)


def change_doas_conf(add):
    """
    Take out of doas.conf what runs that are gone have added, and this one; then add some lines.
    """
    mark = '  # ' + PREFIX
    own = PREFIX + str(os.getpid())
    with etc_locked():
        try:
            with open(DOAS_CONF) as fp:
                lines = fp.read().splitlines()
            old = os.stat(DOAS_CONF)
            mode, uid, gid = old.st_mode & 0o777, old.st_uid, old.st_gid
        except FileNotFoundError:
            lines, mode, uid, gid = [], 0o600, 0, 0

        def stays(line):
            name = line[line.rindex(mark) + 4:].strip() if mark in line else ''
            return not (name == own or is_stale(name))

        lines = [line for line in lines if stays(line)] + ['%s  # %s' % (line, own) for line in add]
        if not lines:
            if os.path.exists(DOAS_CONF):
                os.unlink(DOAS_CONF)
            return
        fd = os.open(DOAS_CONF + '.new', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, 'w') as fp:
            fp.write('\n'.join(lines) + '\n')
        os.chown(DOAS_CONF + '.new', uid, gid)
        os.rename(DOAS_CONF + '.new', DOAS_CONF)
