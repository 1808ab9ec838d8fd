# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `podman`: a child in a container that runs.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import mitogen.parent


class Options(mitogen.parent.Options):
    """
    :param container: name or id of the container.
    :param podman_path: the client program.
    :param username: user, as the client's ``--user`` takes it.
    """
    podman_path = 'podman'

    def __init__(self, container, podman_path=None, username=None, **options):
        super(Options, self).__init__(**options)
        self.podman_path = podman_path or self.podman_path
        self.container, self.username = container, username
        self._refuse_dash('container', 'username')


class Connection(mitogen.parent.Connection):
    """
    No descriptor of the client is a terminal.
    """
    options_class = Options
    create_child_args = {'merge_stdio': True}
    child_is_immediate_subprocess = False

    def _get_name(self):
        return u'podman.%s' % (self.options.container,)

    def get_boot_command(self):
        command = [self.options.podman_path, 'exec']
        if self.options.username:
            command.append('--user=%s' % (self.options.username,))
        command += ['--interactive', '--', self.options.container]
        return command + super(Connection, self).get_boot_command()
