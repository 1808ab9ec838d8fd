"""What does a context behind ssh cost, beyond what ssh itself takes?

A server of this program's own listens on the loopback interface and lets the user that runs it
in, by a key.
"""

import contextlib
import os
import statistics
import subprocess
import sys

import harness
import loopback
import remote


def with_mitogen(bench):
    with bench.figure('ssh_call', 'ssh_connect_more'), contextlib.ExitStack() as stack:
        try:
            folder, _ = stack.enter_context(loopback.hosts(1))
        except loopback.Unavailable as why:
            raise harness.Skip(str(why))
        ssh = [loopback.which('ssh'), '-F', os.path.join(folder, 'config')]
        with harness.mitogen_router() as router:
            def connect():
                context = router.ssh(hostname='h1', ssh_args=ssh[1:], python_path=sys.executable)
                context.call(os.getpid)
                return context

            child = connect()
            harness.report_time(bench, 'ssh_call', lambda: child.call(remote.nothing))
            more, alone = [], []
            for _ in range(5 if bench.quick else 15):
                began = harness.clock()
                subprocess.check_call(ssh + ['-o', 'Compression=yes', 'h1', 'true'])
                between = harness.clock()
                child = connect()
                ended = harness.clock()
                alone.append((between - began) * 1e3)
                more.append((ended - between) * 1e3 - alone[-1])
                child.shutdown(wait=True)
            bench.emit('ssh_connect_more', statistics.median(more), ssh_true=statistics.median(alone), all=more)


if __name__ == '__main__':
    harness.main(globals())
