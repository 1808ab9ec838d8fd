"""How many bytes does it take to start a child: on the command line, and down its standard input?

The child is started through counting_python.py, which stands in for the interpreter, so the
figures are what really goes out, whatever a peer calls it.
"""

import json
import os
import shlex
import sys
import tempfile

import harness

COUNTER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'counting_python.py')


def report(bench, ready, start):
    """
    ready: bytes which the child writes once it needs no more; start(argv): starts a child with that
    python.
    """
    handle, path = tempfile.mkstemp(prefix='boot_size.')
    os.close(handle)
    os.environ['BOOT_SIZE_REPORT'] = path
    os.environ['BOOT_SIZE_READY'] = ready
    try:
        start([sys.executable, COUNTER])
        with open(path) as written:
            sizes = json.load(written)
    finally:
        os.unlink(path)
    bench.emit('boot_command', sizes['command'])
    bench.emit('preamble', sizes['stdin'])


def with_mitogen(bench):
    with bench.figure('boot_command', 'preamble'):
        with harness.mitogen_router() as router:
            report(bench, 'MITO002', lambda argv: router.local(python_path=argv).call(os.getpid))


def with_execnet(bench):
    import gateway_child
    gateways = gateway_child.group()
    try:
        with bench.figure('boot_command', 'preamble'):
            # The far side of a gateway says '1' when its own code is in place.
            report(bench, '1', lambda argv: gateways.makegateway(
                'popen//python=' + ' '.join(shlex.quote(arg) for arg in argv)
            ).remote_exec('channel.send(1)').receive())
    finally:
        gateway_child.end(gateways)


if __name__ == '__main__':
    harness.main(globals())
