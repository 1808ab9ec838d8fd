# SPDX-License-Identifier: BSD-3-Clause
"""
The program file that is started in place of `ssh`, and how others are told of it.
"""

from __future__ import absolute_import  # house

import os  # house
import subprocess  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.parent  # house


#: The program that the tool takes for ssh. Any path of an interpreter is right
#: in it, unlike behind a hashbang.
_WRAPPER = '''#!/bin/sh
exec %(python)s %(folder)s/start.py "$@"
'''

_START = '''
import os, sys
sys.path[:] = [path for path in sys.path if path != %(folder)r]
package = sys.modules['mitogen'] = type(sys)('mitogen')
package.__path__ = []
core = sys.modules['mitogen.core'] = package.core = type(sys)('mitogen.core')
core.__file__ = 'x/mitogen/core.py'
fp = open(%(folder)r + '/core.py', 'rb')
core._core_source = fp.read()
fp.close()
exec(compile(core._core_source, core.__file__, 'exec'), core.__dict__)
config = %(config)s
config['out_fd'] = os.dup(config['in_fd'])
core.ExternalContext(config).main()
'''


def _quoted(path):
    return "'%s'" % (path.replace("'", "'\\''"),)


def _make_config(router, context_id, fd, econtext):
    if mitogen.is_master:
        policy = router.responder.policy
    else:
        policy = econtext.importer.policy
    return {
        'context_id': context_id,
        'parent_ids': [mitogen.context_id] + list(mitogen.parent_ids),
        'version': tuple(mitogen.__version__),
        'in_fd': fd,
        'core_src_fd': None,
        'send_ec2': False,
        'setup_stdio': False,
        'debug': bool(getattr(router, 'debug', False)),
        'profiling': bool(getattr(router, 'profiling', False)),
        'unidirectional': bool(router.unidirectional),
        'max_message_size': int(router.max_message_size),
        'log_levels': mitogen.parent.get_log_levels(),
        'import_blocks': sorted(policy.blocks),
        'import_overrides': sorted(policy.overrides),
    }


def _write_program(folder, config):
    """
    Write our `ssh` to a directory, and return its path.
    """
    python = mitogen.parent.get_sys_executable()
    mitogen.parent._refuse_frozen([python])
    source = mitogen.core.get_core_source()
    if not isinstance(source, mitogen.core.BytesType):
        source = source.encode('utf-8')
    names = {
        'folder': folder,
        'config': mitogen.core.to_text(mitogen.parent._literal(config)),
    }
    wrapper = _WRAPPER % {
        'python': _quoted(python),
        'folder': _quoted(folder),
    }
    path = os.path.join(folder, 'ssh')
    for name, data in (('core.py', source), ('start.py', _START % names),
                       ('ssh', wrapper)):
        if not isinstance(data, mitogen.core.BytesType):
            data = data.encode('utf-8', 'surrogateescape')
        with open(os.path.join(folder, name), 'wb') as fp:
            fp.write(data)
    os.chmod(path, 0o755)
    return path


def _with_our_ssh(args, path):
    """
    Return the command line of a program that does not look for `ssh` by PATH:
    scp of OpenSSH has the path of its own, and its newer protocol needs a
    subsystem of the server, where there is none.

    :param path: of our `ssh`.
    """
    if os.path.basename(args[0]) not in ('scp', b'scp') or '-S' in args:
        return args
    more = ['-S', path]
    try:
        proc = mitogen.parent.popen(args=[args[0], '-O'], stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # Both tell how scp is used; one that does not know it also says so.
        if b' option -- ' not in proc.communicate()[0]:
            more.append('-O')
    except OSError:
        # The program is not there, as its start is about to say.
        pass
    return args[:1] + more + args[1:]
