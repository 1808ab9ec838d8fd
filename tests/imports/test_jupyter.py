"""
A notebook: its cells are the main program, which has no file. The kernel is a real one, ipykernel
from PyPI.
"""

import os
import subprocess
import sys

import pytest

import mitogen.parent

import jupyter as packages

jupyter = packages.jupyter

#: Has a kernel run the cells of its arguments, and prints what they print, and their errors.
NOTEBOOK = '''
import sys
from jupyter_client.manager import start_new_kernel

def show(message):
    content = message['content']
    if message['msg_type'] == 'stream':
        print(content['text'], end='')
    elif message['msg_type'] == 'error':
        print('%s: %s' % (content['ename'], content['evalue']))

manager, client = start_new_kernel(startup_timeout=120)
try:
    for cell in sys.argv[1:]:
        client.execute_interactive(cell, timeout=120, output_hook=show)
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
'''

BEGIN = '''
import os, mitogen.master
router = mitogen.master.Router()
child = router.local()
def f(): return 1
'''

END = 'router.broker.shutdown(); router.broker.join()'


@pytest.fixture
def run(jupyter, tmp_path):
    """
    A function that runs cells in a notebook and returns the lines that it shows.
    """
    def run(*cells):
        env = dict(os.environ, PYTHONPATH=jupyter, HOME=str(tmp_path), JUPYTER_PLATFORM_DIRS='0')
        done = subprocess.run([sys.executable, '-c', NOTEBOOK, BEGIN] + list(cells) + [END], cwd=str(tmp_path), env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()
    return run


# The first time a kernel is installed, and PyPI may be slow.
@pytest.mark.seconds(900)
def test_a_notebook_may_call_what_is_in_modules_and_learns_why_cells_cannot_be_called(run, tmp_path):
    (tmp_path / 'nb_module.py').write_text('def f(): return 2\n')
    lines = run(
        'print(child.call(os.getpid) != os.getpid())',
        'import nb_module; print(child.call(nb_module.f))',
        'child.call(f)',
        # It goes on as before.
        'text = "def f(): return 3\\nif __name__ == \'__main__\': pass\\n"\n'
        'router.responder.add_source_override("__main__", "cells", text, False)',
        'print(child.call(f))',
        # A tree has its functions called, and sees what was typed anew.
        'import mitogen\nLIMIT = 5\ndef g(x): return f() + x + LIMIT',
        'tree = mitogen.Tree(); host = tree.connect()\nprint(host.call(g, 10))',
        'def f(): return 100',
        'print(host.submit(g, 10).result()); tree.close()',
    )
    assert lines == ['True', '2', 'TypeError: ' + mitogen.parent.CallChain._sourceless_msg % 'f', '3', '16', '115']
