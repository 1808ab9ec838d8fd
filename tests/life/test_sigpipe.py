"""
A program that has put SIGPIPE back to its default, as command line tools do, outlives its children.
"""

import os
import subprocess
import sys

import pytest

START = '''
import faulthandler, os, signal, socket
import mitogen.core, mitogen.master, mitogen.parent
signal.signal(signal.SIGPIPE, signal.SIG_DFL)

def left():
    return signal.SIGPIPE in signal.pthread_sigmask(signal.SIG_BLOCK, []) or signal.SIGPIPE in signal.sigpending()

if __name__ == '__main__':
    faulthandler.dump_traceback_later(100, exit=True)
'''

KILLED = '''
    with mitogen.master.Router() as router:
        lost = 0
        for _ in range(8):
            child = router.local()
            os.kill(child.call(os.getpid), signal.SIGKILL)
            try:
                while True:
                    child.call(os.getpid)
            except mitogen.core.ChannelError:
                lost += 1
        print(lost, left())
'''

OVER_PIPES = '''
    def pipes(**kwargs):
        return mitogen.core.pipe() + mitogen.core.pipe()

    mitogen.parent.create_best_pipe = pipes
''' + KILLED

WRITER = '''
    class Broker(object):
        def defer(self, func):
            print(func.__name__, left())

    ours, theirs = socket.socketpair()
    theirs.close()
    stream = mitogen.core.Stream()
    stream.set_protocol(mitogen.core.Protocol())
    stream.accept(ours, ours)
    print(stream.transmit_side.write(b'x'), left())
    mitogen.core.BufferedWriter(Broker(), stream.protocol).write(b'x')
'''

OWN = '''
    reader, writer = os.pipe()
    os.close(reader)
    with mitogen.master.Router() as router:
        router.local().call(os.getpid)
    print('before', flush=True)
    os.write(writer, b'x')
    print('after')
'''


def run(tmp_path, text):
    path = tmp_path / 'program.py'
    path.write_text(START + text)
    done = subprocess.run([sys.executable, str(path)], stdout=subprocess.PIPE)
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize('text, printed', [
    (KILLED, '8 False\n'), (OVER_PIPES, '8 False\n'), (WRITER, 'None False\n_disconnect False\n'),
], ids=['over sockets', 'over pipes', 'while it starts'])
def test_a_write_to_a_dead_child_does_not_end_the_program(tmp_path, text, printed):
    assert run(tmp_path, text) == (0, printed)


def test_the_signal_still_ends_the_program_at_its_own_files(tmp_path):
    assert run(tmp_path, OWN) == (-13, 'before\n')
