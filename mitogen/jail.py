# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `jail`: a child in a FreeBSD jail.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import mitogen.parent


class Options(mitogen.parent.Options):
    """
    :param container: name or number of the jail.
    :param username: user of the jail.
    :param jexec_path: the program that enters it.
    """
    jexec_path = '/usr/sbin/jexec'

    def __init__(self, container, jexec_path=None, username=None, **options):
        super(Options, self).__init__(**options)
        self.container = container
        self.username = username
        if jexec_path:
            self.jexec_path = jexec_path
        self._refuse_dash('container', 'username')


class Connection(mitogen.parent.Connection):
    """
    Runs the child by way of jexec.
    """
    options_class = Options
    create_child_args = {'merge_stdio': True}
    child_is_immediate_subprocess = False

    def _get_name(self):
        return u'jail.%s' % (self.options.container,)

    def get_boot_command(self):
        options = self.options
        command = [options.jexec_path]
        if options.username:
            # jexec looks the user up in the jail, not on the host.
            command += ['-U', options.username]
        command.append(options.container)
        return command + super(Connection, self).get_boot_command()
