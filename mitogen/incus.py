# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `incus`: a child in a container of Incus.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import mitogen.parent


class Options(mitogen.parent.Options):
    """
    :param container: name of the container.
    :param incus_path: the program that enters it.
    """
    incus_path = 'incus'
    python_path = 'python'

    def __init__(self, container, incus_path=None, **options):
        super(Options, self).__init__(**options)
        self.container = container
        self.incus_path = incus_path or self.incus_path
        self._refuse_dash('container')


class Connection(mitogen.parent.Connection):
    """
    Like the command of lxd, from which Incus descends, but for the name of the
    mode.
    """
    options_class = Options
    create_child_args = {'merge_stdio': True}
    child_is_immediate_subprocess = False

    eof_error_hint = (
        'Many versions of incus do not say what kept a program from running '
        'in the container; its logs on the host, under /var/log, are the '
        'place to look.'
    )

    def _get_name(self):
        return u'incus.%s' % (self.options.container,)

    def get_boot_command(self):
        command = [self.options.incus_path, 'exec', '--mode=non-interactive',
                   self.options.container, '--']
        return command + super(Connection, self).get_boot_command()
