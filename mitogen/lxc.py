# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `lxc`: a child in an LXC container.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import mitogen.parent


class Options(mitogen.parent.Options):
    """
    :param container: name of the container.
    :param lxc_attach_path: the program that enters it.
    """
    lxc_attach_path = 'lxc-attach'

    def __init__(self, container, lxc_attach_path=None, **options):
        super(Options, self).__init__(**options)
        self.container = container
        self.lxc_attach_path = lxc_attach_path or self.lxc_attach_path
        self._refuse_dash('container')


class Connection(mitogen.parent.Connection):
    """
    With a terminal among its files lxc-attach would copy all data through one
    of its own; it is given none.
    """
    options_class = Options
    create_child_args = {'merge_stdio': True}
    child_is_immediate_subprocess = False

    eof_error_hint = (
        'Few versions of lxc-attach tell why a program did not run in the '
        'container. The logs of the host, under /var/log, may.'
    )

    def _get_name(self):
        return u'lxc.%s' % (self.options.container,)

    def get_boot_command(self):
        command = [self.options.lxc_attach_path, '--clear-env', '--name',
                   self.options.container, '--']
        return command + super(Connection, self).get_boot_command()
