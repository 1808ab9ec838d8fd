# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `kubectl`: a child in a pod.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import mitogen.parent


class Options(mitogen.parent.Options):
    """
    :param pod: name of the pod.
    :param kubectl_path: the client program.
    :param list kubectl_args: arguments that come before its verb, such as the
        namespace or the container of the pod.
    :raises AssertionError: the name is empty.
    """
    kubectl_path = 'kubectl'

    def __init__(self, pod, kubectl_path=None, kubectl_args=None, **options):
        if not pod:
            raise AssertionError('kubectl: give the name of a pod')
        super(Options, self).__init__(**options)
        self.pod = pod
        self.kubectl_path = kubectl_path or self.kubectl_path
        self.kubectl_args = list(kubectl_args or ())
        self._refuse_dash('pod')


class Connection(mitogen.parent.Connection):
    """
    The client asks for a terminal in the pod, and drops the wish when it
    finds that it has none itself.
    """
    _is_far = True
    options_class = Options
    create_child_args = {'merge_stdio': True}

    def _get_name(self):
        return u'kubectl.%s%r' % (self.options.pod, self.options.kubectl_args)

    def get_boot_command(self):
        options = self.options
        command = [options.kubectl_path] + options.kubectl_args
        command += ['exec', '-it', options.pod, '--']
        return command + super(Connection, self).get_boot_command()
