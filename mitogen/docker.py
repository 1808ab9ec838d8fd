# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `docker`: a child in a container that runs, or in a new one.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import mitogen.parent


class Options(mitogen.parent.Options):
    """
    :param container: name or id of a container that runs.
    :param image: image to make a container of, which is removed again when the
        child ends. Not looked at if there is a `container`.
    :param docker_path: the client program.
    :param username: user, as the client's ``--user`` takes it.
    :raises AssertionError: neither a container nor an image.
    """
    docker_path = 'docker'

    def __init__(self, container=None, image=None, docker_path=None,
                 username=None, **options):
        if not (container or image):
            raise AssertionError('docker: give a container or an image')
        super(Options, self).__init__(**options)
        self.container, self.image = container, image
        self.docker_path = docker_path or self.docker_path
        self.username = username
        self._refuse_dash('container', 'image', 'username')


class Connection(mitogen.parent.Connection):
    """
    The client is given a single socket for all three standard files: no
    terminal anywhere.
    """
    options_class = Options
    create_child_args = {'merge_stdio': True}
    child_is_immediate_subprocess = False

    def _get_name(self):
        return u'docker.%s' % (self.options.container or self.options.image,)

    def get_boot_command(self):
        options = self.options
        verb, target = 'exec', [options.container]
        if not options.container:
            verb, target = 'run', ['--rm', options.image]
        command = [options.docker_path, verb, '--interactive']
        if options.username:
            command.append('--user=%s' % (options.username,))
        return command + target + super(Connection, self).get_boot_command()
