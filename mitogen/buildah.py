# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `buildah`: a child in a container that is being built.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import mitogen.parent


class Options(mitogen.parent.Options):
    """
    :param container: name or id of the working container.
    :param buildah_path: the program.
    :param username: user, as the program's ``--user`` takes it.
    """
    buildah_path = 'buildah'

    def __init__(self, container, buildah_path=None, username=None, **options):
        super(Options, self).__init__(**options)
        self.container = container
        self.username = username
        if buildah_path:
            self.buildah_path = buildah_path
        self._refuse_dash('container', 'username')


class Connection(mitogen.parent.Connection):
    """
    With a terminal the program would make another one in the container; it is
    given none.
    """
    options_class = Options
    create_child_args = {'merge_stdio': True}
    child_is_immediate_subprocess = False

    def _get_name(self):
        return u'buildah.%s' % (self.options.container,)

    def get_boot_command(self):
        user = self.options.username
        return (
            [self.options.buildah_path, 'run'] +
            (['--user=%s' % (user,)] if user else []) +
            ['--', self.options.container] +
            super(Connection, self).get_boot_command()
        )
