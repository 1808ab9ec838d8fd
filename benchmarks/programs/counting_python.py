"""Stands in for a Python interpreter, starts the real one, and counts what it is sent until it is
ready.

Environment: BOOT_SIZE_READY, the text on its standard output that says so; BOOT_SIZE_REPORT, the
file to write {"command": length of the command line, "stdin": bytes} to.
"""

import json
import os
import select
import subprocess
import sys


def write_all(descriptor, chunk):
    while chunk:
        try:
            chunk = chunk[os.write(descriptor, chunk):]
        except BlockingIOError:
            select.select([], [descriptor], [])


def relay(child, ready):
    """
    Pass bytes both ways until either side closes; returns the bytes sent down before `ready` came
    up.
    """
    up, down = child.stdout.fileno(), child.stdin.fileno()
    sources = [0, up]
    sent, answer, waiting = 0, b'', True
    while up in sources:
        for source in select.select(sources, [], [])[0]:
            try:
                chunk = os.read(source, 65536)
            except BlockingIOError:
                continue
            if not chunk:
                sources.remove(source)
                if source == 0:
                    child.stdin.close()
                continue
            if source == 0:
                sent += len(chunk) if waiting else 0
                write_all(down, chunk)
            else:
                answer += chunk if waiting else b''
                if waiting and ready in answer:
                    waiting = False
                    save(sent)
                write_all(1, chunk)


def save(sent):
    command = ' '.join([sys.executable] + sys.argv[1:])
    with open(os.environ['BOOT_SIZE_REPORT'], 'w') as report:
        json.dump({'command': len(command), 'stdin': sent}, report)


def main():
    ready = os.environ['BOOT_SIZE_READY'].encode()
    child = subprocess.Popen([sys.executable] + sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    relay(child, ready)
    sys.exit(child.wait())


if __name__ == '__main__':
    main()
