"""
A responder of a master without the rest of one, and programs of tests/data/importer.
"""

import os
import subprocess
import sys
from unittest import mock

import places
import pythons

import mitogen.core
import mitogen.master

PACKAGE_ROOT = os.path.dirname(os.path.dirname(mitogen.__file__))


class Stream(object):
    def __init__(self, remote_id=1):
        self.protocol = mock.Mock(remote_id=remote_id, sent_modules=set(['mitogen', 'mitogen.core']))


class FakeRouter(mock.Mock):
    """
    Collects what is sent.
    """
    def sent(self):
        return [call[0][0] for call in self._async_route.call_args_list]

    def tuples(self):
        return [msg.unpickle() for msg in self.sent()]


def new_responder(stream):
    """
    Return a ModuleResponder whose router has one child, 1, behind a stream.
    """
    router = FakeRouter()
    router.stream_by_id = lambda context_id: stream if context_id == 1 else None
    responder = mitogen.master.ModuleResponder(router, mitogen.core.ImportPolicy())
    responder.router = router
    return responder


def ask(responder, name, src_id=1):
    responder._on_get_module(mitogen.core.Message(data=name.encode('utf-8'), src_id=src_id))


def run_program(name, python=sys.executable, **variables):
    """
    Run one of the programs in tests/data/importer, return (status, output, errors).
    """
    # Its own directory is on its path, but not on those of its children.
    env = dict(os.environ, PYTHONPATH=PACKAGE_ROOT, **variables)
    env.pop('MITOGEN_LOG_LEVEL', None)
    pythons.keep_bytecode(env, python)
    if python != sys.executable and env.get('MITOGEN_CORE') == 'native':
        # The extension was built for this interpreter alone.
        del env['MITOGEN_CORE']
    proc = subprocess.Popen(
        [python, os.path.join(places.IMPORTER_DATA, name)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, universal_newlines=True)
    out, err = proc.communicate(timeout=60)
    return proc.returncode, out, err
