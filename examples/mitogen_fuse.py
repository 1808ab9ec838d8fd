"""
Mounts a folder of another host here, as a file system.

    python examples/mitogen_fuse.py [options] <host> <mountpoint>

Needs fusepy and libfuse 2 here, and nothing but Python there. The host is reached by ssh(1), and
from there another user by sudo(8) if wanted; "localhost" is a child of this process. Each operation
of the file system is one call of one function there. It ends when the file system is unmounted
(fusermount -u, or umount).

Results of stat(2) are asked for all the time, so they are remembered for two seconds, and a listing
of a folder brings them along for all that is in it.
"""

# mypy: ignore-errors
# fusepy has no types, and calls by name what it finds here.

from __future__ import print_function

import errno
import os
import sys
import time

import mitogen.core
import mitogen.master

#: Seconds that the state of a file is remembered.
CACHE_SECONDS = 2.0


# ---- what runs on the host

STAT_FIELDS = ('st_mode', 'st_nlink', 'st_uid', 'st_gid', 'st_size', 'st_atime', 'st_mtime', 'st_ctime')
STATVFS_FIELDS = ('f_bsize', 'f_frsize', 'f_blocks', 'f_bfree', 'f_bavail', 'f_files', 'f_ffree', 'f_favail', 'f_flag',
                  'f_namemax')


def fields_of(result, names):
    return dict((name, getattr(result, name)) for name in names)


def do_getattr(path):
    return fields_of(os.lstat(path), STAT_FIELDS)


def do_readdir(path):
    """
    Return a list of (name, what do_getattr() returns).
    """
    found = []
    for name in os.listdir(path):
        try:
            found.append((name, do_getattr(os.path.join(path, name))))
        except OSError:
            # It is gone again.
            pass
    return found


def do_read(path, size, offset):
    with open(path, 'rb') as fp:
        fp.seek(offset)
        return fp.read(size)


def do_write(path, data, offset):
    with open(path, 'r+b') as fp:
        fp.seek(offset)
        fp.write(data)
    return len(data)


def do_create(path, mode):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode))


def do_truncate(path, length):
    with open(path, 'r+b') as fp:
        fp.truncate(length)


def do_utimens(path, times):
    os.utime(path, times)


def do_statfs(path):
    return fields_of(os.statvfs(path), STATVFS_FIELDS)


def do_access(path, mode):
    if not os.access(path, mode):
        raise OSError(errno.EACCES, path)


OPERATIONS = {
    'getattr': do_getattr, 'readdir': do_readdir, 'read': do_read, 'write': do_write, 'create': do_create,
    'truncate': do_truncate, 'utimens': do_utimens, 'statfs': do_statfs, 'access': do_access,
    'readlink': os.readlink, 'symlink': os.symlink, 'link': os.link, 'rename': os.rename, 'unlink': os.unlink,
    'mkdir': os.mkdir, 'rmdir': os.rmdir, 'chmod': os.chmod, 'chown': os.lchown,
}


def perform(name, *args):
    """
    Return (result, None), or (None, name of the error): its number may be another one here.
    """
    try:
        return OPERATIONS[name](*args), None
    except (IOError, OSError) as error:
        return None, errno.errorcode.get(error.errno, 'EIO')


# ---- what runs here

class Files(object):
    """
    The object that fusepy calls, on any thread, with a method for each operation that is supported.
    """

    def __init__(self, connect, root):
        self.connect = connect
        self.root = root
        self.broker = self.context = None
        #: Path -> (time of expiry, what do_getattr() returns). Threads may lose an entry to each
        #: other, no more.
        self.known = {}

    def __call__(self, op, *args):
        return getattr(self, op)(*args)

    def init(self, path):
        # Before, libfuse forks to go into the background, which no thread survives. This one ends
        # when it likes, so the broker must not end with it.
        self.broker = mitogen.master.Broker(install_watcher=False)
        try:
            self.context = self.connect(mitogen.master.Router(self.broker))
        except mitogen.core.StreamError as error:
            # Every operation fails until somebody unmounts it.
            print('cannot connect: %s' % (str(error).partition('\nContext ')[0],), file=sys.stderr)

    def destroy(self, path):
        self.broker.shutdown()
        self.broker.join()

    def path_of(self, path):
        return self.root.rstrip('/') + path

    def perform(self, name, *args):
        if self.context is None:
            raise OSError(errno.ENOTCONN, name)
        try:
            result, error = self.context.call(perform, name, *args)
        except mitogen.core.ChannelError:
            raise OSError(errno.ENOTCONN, name)
        if error:
            raise OSError(getattr(errno, error, errno.EIO), name)
        return result

    def change(self, name, path, *args):
        """
        Perform what makes the remembered state of a path wrong.
        """
        try:
            return self.perform(name, self.path_of(path), *args)
        finally:
            self.known.pop(path, None)
            self.known.pop(os.path.dirname(path), None)

    def remember(self, path, stat):
        self.known[path] = time.time() + CACHE_SECONDS, stat
        return stat

    # Looking.

    def getattr(self, path, handle=None):
        expires, stat = self.known.get(path, (0, None))
        if expires > time.time():
            return stat
        return self.remember(path, self.perform('getattr', self.path_of(path)))

    def readdir(self, path, handle):
        now = time.time()
        self.known = dict(item for item in list(self.known.items()) if item[1][0] > now)
        found = self.perform('readdir', self.path_of(path))
        for name, stat in found:
            self.remember(os.path.join(path, name), stat)
        return ['.', '..'] + [name for name, _ in found]

    def access(self, path, mode):
        self.perform('access', self.path_of(path), mode)
        return 0

    def readlink(self, path):
        return self.perform('readlink', self.path_of(path))

    def statfs(self, path):
        return self.perform('statfs', self.path_of(path))

    # A file is opened there anew for each read and write, so nothing is lost with a connection.

    def open(self, path, flags):
        return 0

    def read(self, path, size, offset, handle):
        return self.perform('read', self.path_of(path), size, offset)

    # Changing.

    def create(self, path, mode, info=None):
        self.change('create', path, mode)
        return 0

    def write(self, path, data, offset, handle):
        return self.change('write', path, data, offset)

    def truncate(self, path, length, handle=None):
        self.change('truncate', path, length)

    def unlink(self, path):
        self.change('unlink', path)

    def mkdir(self, path, mode):
        self.change('mkdir', path, mode)

    def rmdir(self, path):
        self.change('rmdir', path)

    def chmod(self, path, mode):
        self.change('chmod', path, mode)

    def chown(self, path, uid, gid):
        self.change('chown', path, uid, gid)

    def utimens(self, path, times=None):
        self.change('utimens', path, times)

    def rename(self, old, new):
        self.change('rename', old, self.path_of(new))
        # If it is a folder, what is in it has moved as well.
        self.known = {}

    def symlink(self, path, text):
        self.perform('symlink', text, self.path_of(path))
        self.known.pop(os.path.dirname(path), None)

    def link(self, path, old):
        self.change('link', old, self.path_of(path))


def parse_args():
    import argparse
    parser = argparse.ArgumentParser(description='Mount a folder of another host.')
    parser.add_argument('host', help='[user@]name for ssh, or localhost')
    parser.add_argument('mountpoint')
    parser.add_argument('--root', default='/', help='folder there to mount (default: /)')
    parser.add_argument('--sudo', metavar='USER', help='user whose eyes to see it with')
    parser.add_argument('-f', '--foreground', action='store_true', help='do not go into the background')
    parser.add_argument('--python', default='python3', help='name of the interpreter there (default: python3)')
    parser.add_argument('--ssh-config', help='file to use instead of ~/.ssh/config')
    return parser.parse_args()


def main():
    # Only here, as the host has none.
    import fuse
    options = parse_args()

    def connect(router):
        if options.host == 'localhost':
            context = router.local(python_path=options.python)
        else:
            user, _, hostname = options.host.rpartition('@')
            context = router.ssh(
                hostname=hostname, username=user or None, python_path=options.python,
                ssh_args=['-F', options.ssh_config] if options.ssh_config else [])
        if options.sudo:
            context = router.sudo(username=options.sudo, via=context, python_path=options.python)
        return context

    fuse.FUSE(Files(connect, options.root), options.mountpoint, foreground=options.foreground,
              fsname='mitogen:%s' % (options.host,))


if __name__ == '__main__':
    main()
