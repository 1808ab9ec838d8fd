# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `srun`: a child in an allocation of Slurm, new or there already.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import os

import mitogen.parent
from mitogen.core import to_text


class Options(mitogen.parent.Options):
    """
    :param jobid: number of the allocation to be in. By default it is that which we are in, or else
        a new one, that ends with the child.
    :param node: name of the node to be on; by default one that the client chooses.
    :param partition: to ask for a new allocation in.
    :param srun_path: the client program.
    :param list srun_args: other words for it, such as ``--mem=4G`` or ``--time=10``.
    """
    srun_path = 'srun'

    def __init__(self, jobid=None, node=None, partition=None, srun_path=None, srun_args=None, **options):
        super(Options, self).__init__(**options)
        self.jobid, self.node, self.partition = jobid, node, partition
        self.srun_path = srun_path or self.srun_path
        self.srun_args = list(srun_args or ())
        self._refuse_dash('jobid', 'node', 'partition')


class Connection(mitogen.parent.Connection):
    """
    The client's own messages are kept apart: at any time it may say that the allocation is about to
    end.
    """
    _is_far = True
    options_class = Options
    create_child_args = {'stderr_pipe': True}
    child_is_immediate_subprocess = False

    def _get_name(self):
        options = self.options
        return u'srun.%s' % (u'/'.join(to_text(part) for part in (options.jobid, options.node) if part) or u'new',)

    def get_boot_command(self):
        options = self.options
        # The client would keep output until a line has ended.
        command = [options.srun_path, '--ntasks=1', '--nodes=1', '--unbuffered']
        if options.jobid or os.environ.get('SLURM_JOB_ID'):
            # A step of its own would wait until the others in the allocation have ended.
            command.append('--overlap')
        for name, value in ('jobid', options.jobid), ('nodelist', options.node), ('partition', options.partition):
            if value:
                command.append('--%s=%s' % (name, to_text(value)))
        return command + options.srun_args + super(Connection, self).get_boot_command()
