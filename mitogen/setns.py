# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `setns`: a child in a container of any kind that Linux runs,
without the help of the container's own tools beyond asking for a process id.

The new process joins the namespaces of the container's first process, before
anything of the container runs, and becomes the user asked for.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import ctypes
import grp
import logging
import mmap
import os
import pwd
import subprocess

import mitogen.core
import mitogen.parent

from mitogen.core import b
from mitogen.core import to_text


LOG = logging.getLogger(__name__)

#: In this order: a process that has left its own namespace of users can no
#: longer join namespaces that belong to it.
NAMESPACES = ('ipc', 'uts', 'net', 'pid', 'mnt', 'user')

#: Functions of libc that close a database of names. Where they are missing
#: there is nothing to close.
_CLOSERS = ('endpwent', 'endgrent', 'endspent', 'endsgent')


class Error(mitogen.parent.ConnectError):
    """
    There is no such container, or it cannot be entered.
    """
    pass


class EnterError(Error, getattr(subprocess, 'SubprocessError', Exception)):
    """
    The new process could not enter the container.
    """
    pass


def _run(args):
    """
    Run a program and return (exit status, all that it prints).
    """
    try:
        # In a language that we understand.
        proc = mitogen.parent.popen(
            args=args, env=dict(os.environ, LC_ALL='C'), close_fds=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
    except OSError as e:
        return None, mitogen.parent._error_text(e)
    output, _ = proc.communicate()
    return proc.returncode, output.decode('utf-8', 'replace')


def _find_pid(output, key):
    """
    Return the process id in some output, or None.

    :param key: first word of the line to look at, in lower case; None if there
        are to be no other words than the number.
    """
    lines = [line.split() for line in output.splitlines()]
    if key is not None:
        lines = [words[1:2] for words in lines
                 if words and words[0].lower() == key][:1]
    try:
        (word,), = lines
        # Zero stands for a container that does not run.
        return int(word) or None
    except ValueError:
        return None


def _get_pid(args, key=None):
    """
    Run a program and return the process id that it prints, see `_find_pid`.

    :raises Error: there is none.
    """
    args = [mitogen.parent._native_str(arg) for arg in args]
    status, output = _run(args)
    if status is None:
        what = u'the program cannot be run'
    elif status:
        what = u'the program ' + mitogen.parent.returncode_to_str(status)
    else:
        pid = _find_pid(output, key)
        if pid is not None:
            return pid
        what = u'its pid is not in the output of the program, which ' \
               u'exited with return code 0'
    raise Error(u'Cannot find the container: %s. Command was: %s. Output '
                u'was:\n%s', what, to_text(str(mitogen.parent.Argv(args))),
                output)


def get_docker_pid(path, name):
    """Return the process id of a container of Docker."""
    return _get_pid([path, 'inspect', '--format={{.State.Pid}}', name])


def get_lxc_pid(path, name):
    """Return the process id of a container of LXC."""
    return _get_pid([path, '-n', name], u'pid:')


def get_lxd_pid(path, name):
    """Return the process id of a container of LXD."""
    return _get_pid([path, 'info', name], u'pid:')


def get_machinectl_pid(path, name):
    """Return the process id of a container of systemd."""
    return _get_pid([path, 'status', name], u'leader:')


#: Kind of container -> function that returns the process id to join.
GET_LEADER_BY_KIND = {
    'docker': get_docker_pid,
    'lxc': get_lxc_pid,
    'lxd': get_lxd_pid,
    'machinectl': get_machinectl_pid,
}

#: Kind of container -> option that names the program to ask.
_PATH_OPTIONS = {
    'docker': 'docker_path',
    'lxc': 'lxc_info_path',
    'lxd': 'lxc_path',
    'machinectl': 'machinectl_path',
}


class Options(mitogen.parent.Options):
    """
    Options of the method.

    :param container: its name, as the tools of its kind know it.
    :param kind: one of the keys of :data:`GET_LEADER_BY_KIND`.
    :param username: user of the container; root by default.
    :param docker_path: Docker's client.
    :param lxc_path: LXD's client.
    :param lxc_info_path: LXC's lxc-info.
    :param machinectl_path: systemd's machinectl.
    :raises Error: no such kind.
    """
    python_path = 'python'
    username = u'root'

    #: The programs, found by way of PATH unless given.
    machinectl_path = 'machinectl'
    docker_path = 'docker'
    lxc_info_path = 'lxc-info'
    lxc_path = 'lxc'

    def __init__(self, container, kind, username=None, docker_path=None,
                 lxc_path=None, lxc_info_path=None, machinectl_path=None,
                 **options):
        if kind not in GET_LEADER_BY_KIND:
            raise Error(u'setns does not know the container kind %r, only %s',
                        kind, u', '.join(sorted(GET_LEADER_BY_KIND)))
        super(Options, self).__init__(**options)
        self.container, self.kind = container, kind
        for name, value in (('username', username),
                            ('docker_path', docker_path),
                            ('lxc_path', lxc_path),
                            ('lxc_info_path', lxc_info_path),
                            ('machinectl_path', machinectl_path)):
            if value:
                setattr(self, name, value)
        self._refuse_dash('container', 'username')


def _join(libc, fd, name):
    if libc.setns(fd, 0):
        number = ctypes.get_errno()
        raise OSError(number, 'setns(%s): %s' % (name, os.strerror(number)))


def _enter_namespaces(libc, pid):
    """
    Move this process to the root and the namespaces of another one.
    """
    found = []
    for name in NAMESPACES:
        path = '/proc/%d/ns/%s' % (pid, name)
        own = '/proc/self/ns/' + name
        # The kernel refuses to join a namespace of users twice.
        if os.path.exists(path) and not os.path.samefile(path, own):
            found.append((name, os.open(path, os.O_RDONLY)))
    os.chdir('/proc/%d/root' % (pid,))
    os.chroot('.')
    os.chdir('/')
    for name, fd in found:
        _join(libc, fd, name)
        os.close(fd)


def _become(libc, username):
    """
    Turn this process into one of a user of the system that it is in by now.
    """
    for name in _CLOSERS:
        # The databases may still be open, on the files of the host.
        close = getattr(libc, name, None)
        if close is not None:
            close()
    try:
        user = pwd.getpwnam(username)
    except KeyError:
        raise Error(u'the container has no user %s', to_text(username))

    os.setgroups([group.gr_gid for group in grp.getgrall()
                  if username in group.gr_mem])
    os.setregid(user.pw_gid, user.pw_gid)
    os.setreuid(user.pw_uid, user.pw_uid)
    os.environ.update({
        'HOME': user.pw_dir,
        'LOGNAME': username,
        'SHELL': user.pw_shell or '/bin/sh',
        'USER': username,
    })
    if os.access(user.pw_dir, os.X_OK):
        os.chdir(user.pw_dir)


class Connection(mitogen.parent.Connection):
    """
    Joining a namespace of process ids changes nothing for the process that
    joins, only for the children. So a shell joins, and the interpreter is its
    child.
    """
    options_class = Options
    child_is_immediate_subprocess = False

    #: Process id that is joined.
    leader_pid = None

    def _get_name(self):
        return u'setns.' + to_text(self.options.container)

    def connect(self, context):
        # Takes as long as the program takes, so not on the broker thread.
        options = self.options
        self.context = context
        try:
            self.leader_pid = GET_LEADER_BY_KIND[options.kind](
                getattr(options, _PATH_OPTIONS[options.kind]),
                options.container)
        except Error as e:
            self._enter_stage(u'looking for the container')
            e.detail = self._describe(mitogen.parent._error_text(e))
            raise
        LOG.debug('the container %s is that of process %d',
                  self.options.container, self.leader_pid)
        super(Connection, self).connect(context)

    def get_boot_command(self):
        # With a command to follow, no shell runs python in its own place.
        boot = mitogen.parent._shell_line(
            super(Connection, self).get_boot_command())
        return ['/bin/sh', '-c', '%s; exit $?' % (boot,)]

    def start_child(self):
        libc = ctypes.CDLL(None, use_errno=True)
        username = mitogen.parent._native_str(self.options.username)
        # Shared with the new process. `subprocess` reports that an error
        # occurred there, but not which.
        reason = mmap.mmap(-1, 4096)

        def enter():
            try:
                _enter_namespaces(libc, self.leader_pid)
                _become(libc, username)
            except Exception as e:
                text = mitogen.parent._error_text(e).encode('utf-8')
                reason.write(text[:4096])
                raise

        self.create_child_args = {'preexec_fn': enter}
        try:
            return super(Connection, self).start_child()
        except Exception:
            text = reason[:].rstrip(b('\0')).decode('utf-8', 'replace')
            if not text:
                raise
            raise EnterError(u'Cannot enter the container of process %d: %s',
                             self.leader_pid, text)
        finally:
            del self.create_child_args
            reason.close()
