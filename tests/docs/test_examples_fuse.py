"""
The example that mounts the files of another host, with the kernel's own file system calls.
"""

import ctypes.util
import errno
import os
import signal
import stat
import subprocess
import sys

import accounts
import pytest
import test_examples_hosts
import sshd
import testlib

EXAMPLE = os.path.join(test_examples_hosts.EXAMPLES, 'mitogen_fuse.py')

account = accounts.account
running_server = sshd.running_server
server = sshd.server
config = test_examples_hosts.config


@pytest.fixture(autouse=True)
def fuse_is_there():
    if not os.path.exists(EXAMPLE):
        pytest.skip('needs the source tree')
    if not os.access('/dev/fuse', os.R_OK | os.W_OK):
        pytest.skip('this machine, or this container, does not let us mount anything by FUSE')
    pytest.importorskip('fuse', reason='fusepy is not installed')
    if not ctypes.util.find_library('fuse'):
        pytest.skip('libfuse 2 is not installed (Debian: libfuse2)')


@pytest.fixture
def tree(tmp_path):
    """
    A folder with something in it, that is going to be mounted.
    """
    root = tmp_path / 'there'
    (root / 'folder').mkdir(parents=True)
    (root / 'small').write_bytes(b'small\n')
    (root / 'folder' / 'large').write_bytes(os.urandom(1000003))
    (root / 'link').symlink_to('small')
    return root


@pytest.fixture
def mount(tmp_path):
    """
    A function that runs the example and returns the folder that it has mounted something at, and
    the process.
    """
    folder = tmp_path / 'here'
    folder.mkdir()
    procs = []

    def mount(*args, **kwargs):
        proc = subprocess.Popen([sys.executable, EXAMPLE] + list(args[:1]) + [str(folder)] + list(args[1:]),
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        procs.append(proc)
        testlib.wait_for(lambda: is_mounted(folder) or proc.poll(), 60)
        return folder, proc

    yield mount
    if is_mounted(folder):
        unmount(folder)
    for proc in procs:
        _, err = proc.communicate(timeout=60)
        assert (proc.returncode, b'Traceback' in err) == (0, False), err
    assert not is_mounted(folder)


def is_mounted(folder):
    """
    Return whether something is mounted there, though it may fail whatever it is asked.
    """
    with open('/proc/self/mounts') as fp:
        return str(folder) in [line.split()[1] for line in fp]


def unmount(folder):
    # Root needs no help; the other one is of the package fuse, or fuse3.
    accounts.run(*(['umount'] if os.geteuid() == 0 else ['fusermount', '-u']), str(folder))


def test_looking_at_files(tree, mount):
    folder, _ = mount('localhost', '-f', '--root', str(tree))
    assert sorted(os.listdir(folder)) == ['folder', 'link', 'small']
    assert (folder / 'small').read_bytes() == b'small\n'
    assert (folder / 'folder' / 'large').read_bytes() == (tree / 'folder' / 'large').read_bytes()
    assert os.readlink(folder / 'link') == 'small'
    for name in 'small', 'folder', 'link', 'folder/large':
        ours, theirs = os.lstat(folder / name), os.lstat(tree / name)
        assert ours.st_mode == theirs.st_mode
        assert (ours.st_size, ours.st_uid, int(ours.st_mtime)) == (theirs.st_size, theirs.st_uid, int(theirs.st_mtime))
    assert os.statvfs(folder).f_blocks == os.statvfs(tree).f_blocks
    with pytest.raises(FileNotFoundError):
        os.stat(folder / 'none')


def test_changing_files(tree, mount):
    folder, _ = mount('localhost', '-f', '--root', str(tree))
    content = os.urandom(500001)
    (folder / 'new').write_bytes(content)
    assert (tree / 'new').read_bytes() == content
    (folder / 'new').write_bytes(b'shorter')
    assert (tree / 'new').read_bytes() == (folder / 'new').read_bytes() == b'shorter'
    os.truncate(folder / 'new', 3)
    os.chmod(folder / 'new', 0o640)
    os.utime(folder / 'new', (1000000000, 1000000000))
    found = os.stat(tree / 'new')
    assert (found.st_size, stat.S_IMODE(found.st_mode), found.st_mtime) == (3, 0o640, 1000000000)
    assert os.stat(folder / 'new').st_size == 3
    (folder / 'made').mkdir()
    os.rename(folder / 'new', folder / 'made' / 'moved')
    assert os.listdir(tree / 'made') == ['moved']
    os.symlink('made/moved', folder / 'second')
    assert os.readlink(tree / 'second') == 'made/moved'
    with pytest.raises(OSError) as caught:
        os.rmdir(folder / 'made')
    assert caught.value.errno == errno.ENOTEMPTY
    os.unlink(folder / 'made' / 'moved')
    os.rmdir(folder / 'made')
    os.unlink(folder / 'second')
    assert sorted(os.listdir(folder)) == sorted(os.listdir(tree)) == ['folder', 'link', 'small']


def test_in_the_background(tree, mount):
    folder, proc = mount('localhost', '--root', str(tree))
    assert proc.wait(timeout=60) == 0
    assert (folder / 'small').read_bytes() == b'small\n'


def test_the_eyes_of_somebody_else(tree, mount, config, account):
    # As seen by somebody who is let in by a server, and may not look into this.
    private = os.path.join(account.folder, 'private')
    os.mkdir(private, 0o700)
    try:
        folder, _ = mount('one', '-f', '--root', account.folder, *config)
        assert os.stat(folder / 'home').st_uid == account.uid
        (folder / 'home' / 'mine').write_text('mine')
        assert os.stat(os.path.join(account.home, 'mine')).st_uid == account.uid
        with pytest.raises(PermissionError):
            os.listdir(folder / 'private')
        unmount(folder)
    finally:
        os.rmdir(private)
        os.unlink(os.path.join(account.home, 'mine'))


def test_a_host_that_is_lost(tree, mount):
    folder, proc = mount('localhost', '-f', '--root', str(tree))
    assert os.listdir(folder)
    for pid in sshd.children_of(proc.pid):
        testlib.send_signal(pid, signal.SIGKILL)
    with pytest.raises(OSError) as caught:
        testlib.wait_for(lambda: os.listdir(folder) is None)
    assert caught.value.errno == errno.ENOTCONN


def test_a_host_that_is_not_there(mount):
    folder, proc = mount('no host at all', '-f')
    with pytest.raises(OSError) as caught:
        os.listdir(folder)
    assert caught.value.errno == errno.ENOTCONN
    unmount(folder)
    assert b'cannot connect' in proc.stderr.read()
