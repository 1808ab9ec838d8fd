"""
Functions that test_ansible_surface runs in children.
"""

import os
import sys

import mitogen.core
import mitogen.parent
import mitogen.service


@mitogen.core.takes_econtext
def start_helpers(econtext):
    mitogen.parent.upgrade_router(econtext)
    mitogen.parent.upgrade_router(econtext)
    contexts = [econtext.router.fork(), econtext.router.local(), econtext.router.local(python_path=sys.executable)]
    pids = [context.call(os.getpid) for context in contexts]
    for context in contexts:
        context.shutdown(wait=True)
    return os.getpid(), pids


class Echo(mitogen.service.Service):
    @mitogen.service.expose(policy=mitogen.service.AllowParents())
    @mitogen.service.arg_spec({'value': object})
    def echo(self, value):
        return value


@mitogen.core.takes_econtext
def prepare(path, econtext):
    """
    Detach, and write to a file afterwards.
    """
    econtext.detach()
    with open(path, 'w') as fp:
        fp.write('%d' % os.getpid())
    econtext.broker.shutdown()
