# SPDX-License-Identifier: BSD-3-Clause
"""
Connection plugins of collections for containers: each runs a program of the controller's, such as
``docker exec``, and hands it the words of a command. The context in a container is at the end of
such a command line.
"""

from __future__ import absolute_import

import os
import shlex

from ansible.errors import AnsibleError

from mitogen.ansible.connection import FallBack, Mixin, RemoteMixin
from mitogen.ansible.values import plain


class ContainerMixin(RemoteMixin):
    """
    A class below has `_program`, which returns the command line, up to where the words of a command
    begin.
    """

    _reached = None

    def is_pipelining_enabled(self, wrap_async=False):
        # The collection's plugin may have to run the task, and it may be one that hands no input
        # on.
        kinds = [kind for kind in type(self).__mro__ if 'has_pipelining' in vars(kind) and kind is not Mixin]
        if not kinds[0].has_pipelining and not self._reaches():
            return False
        return super(ContainerMixin, self).is_pipelining_enabled(wrap_async)

    def _reaches(self):
        """
        Return whether there is a context in the container.
        """
        if self._reached is None:
            try:
                self._judge(self._ask('fragment', self._target(), ('expand_user', '~')))
                self._reached = True
            except FallBack as reason:
                self._say_why(reason)
                self._reached = False
        return self._reached

    def _target(self):
        try:
            words = self._program()
        except AttributeError as error:
            raise FallBack('the collection is of a version that is not known: %s' % (error,), usual=False)
        return ('container', tuple(os.fsdecode(plain(word)) for word in words),
                (self._interpreter,) if self._interpreter else (), float(self._play_context.timeout or 10) + 20)

    def _run_sudoable(self, cmd):
        if self._becoming and self._becoming.outer and self._becoming.outer in cmd and self._becoming.plugin.expect_prompt():
            raise FallBack('it may ask for a password')
        return self._job(False, ('command', self._words(cmd), b'', ''))[1:]

    def _option(self, name):
        """
        Return the value of an option that older releases of the collection do not have, or None.
        """
        try:
            return self.get_option(name)
        except (KeyError, AnsibleError):
            return None

    def _words(self, cmd):
        """
        Return the words that the plugin of the collection runs for a command.
        """
        return [self._play_context.executable or '/bin/sh', '-c', cmd]

    def _put_file(self, in_path, out_path):
        if not os.path.isabs(plain(out_path)):
            return self._put_slowly(in_path, out_path)
        return super(ContainerMixin, self)._put_file(in_path, out_path)

    def fetch_file(self, in_path, out_path):
        if not os.path.isabs(plain(in_path)):
            return self._fetch_slowly(in_path, out_path)
        return super(ContainerMixin, self).fetch_file(in_path, out_path)


class DockerMixin(ContainerMixin):
    """
    For `community.docker.docker`.
    """

    def _program(self):
        self._set_conn_data()
        return self._build_exec_cmd([])


class PodmanMixin(ContainerMixin):
    """
    For `containers.podman.podman`.
    """

    def _program(self):
        if self._option('privilege_escalation_method') not in (None, 'none', 'auto'):
            raise FallBack('the plugin has a way of its own to become somebody else')
        words = [self.get_option('podman_executable')] + shlex.split(self.get_option('podman_extra_args') or '')
        words += ['exec', '-i']
        user = getattr(self, 'user', None) or self._option('remote_user')
        if user:
            words += ['--user', user]
        for name, value in (self._option('extra_env_vars') or {}).items():
            words += ['--env', '%s=%s' % (name, value)]
        if self._option('working_directory'):
            words += ['--workdir', self._option('working_directory')]
        return words + [self._container_id]

    def _words(self, cmd):
        return shlex.split(cmd)

class KubectlMixin(ContainerMixin):
    """
    For `kubernetes.core.kubectl`.
    """

    def _program(self):
        if self._local_env() is not None:
            raise FallBack('kubectl has an environment of its own')
        if isinstance(self.get_option('kubectl_kubeconfig'), dict):
            raise FallBack('the configuration of kubectl is a file for one command')
        return self._build_exec_cmd([])[0]


class ShellMixin(ContainerMixin):
    """
    For plugins that have an option for the shell over there.
    """

    def _words(self, cmd):
        return [self.get_option('executable'), '-c', cmd]


class InstanceMixin(ShellMixin):
    """
    For `community.general.lxd` and `community.general.incus`.
    """

    def _program(self):
        if self._option('remote_user') not in (None, 'root'):
            raise FallBack('the plugin has a way of its own to become somebody else')
        words = self._build_command('true')
        if words[-4:] != ['--', self.get_option('executable'), '-c', 'true'] or '-t' in words:
            raise FallBack('it gives a command a terminal')
        return words[:-3]


class ChrootMixin(ShellMixin):
    """
    For `community.general.chroot`.
    """

    def _program(self):
        if not self._connected:
            self._connect()
        return [self.chroot_cmd, self.chroot]
