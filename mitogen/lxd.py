# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `lxd`: a child in a container of LXD.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import mitogen.parent


class Options(mitogen.parent.Options):
    """
    :param container: name of the container.
    :param lxc_path: the program that enters it.
    """
    lxc_path = 'lxc'
    python_path = 'python'

    def __init__(self, container, lxc_path=None, **options):
        super(Options, self).__init__(**options)
        self.container = container
        self.lxc_path = lxc_path or self.lxc_path
        self._refuse_dash('container')


class Connection(mitogen.parent.Connection):
    """
    The client is told, and shown, that there is no terminal: it would make the
    child one otherwise.
    """
    options_class = Options
    create_child_args = {'merge_stdio': True}
    child_is_immediate_subprocess = False

    eof_error_hint = (
        'Many versions of the client lxc keep it to themselves if a program '
        'cannot be run in the container. Look for the reason in the logs '
        'of LXD under /var/log on the host.'
    )

    def _get_name(self):
        return u'lxd.%s' % (self.options.container,)

    def get_boot_command(self):
        command = [self.options.lxc_path, 'exec', '--mode=noninteractive',
                   self.options.container, '--']
        return command + super(Connection, self).get_boot_command()
