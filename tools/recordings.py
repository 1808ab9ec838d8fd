#!/usr/bin/env python3
"""
Make the pictures of the program `mitogen` in docs/_static: it runs on a terminal, with real hosts,
and its last screen becomes an SVG.

The hosts are servers of ssh on this machine, each with namespaces of its own: a host name,
processes and a /srv that are not this machine's. It takes root, unshare, sshd, and the package
rich.
"""

import contextlib
import fcntl
import os
import pty
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, 'benchmarks', 'programs'))

import loopback  # noqa: E402

FOLDER = os.path.join(ROOT, 'docs', '_static')

COLUMNS = 92

#: Picture -> commands that are shown with what they print. One that begins with a blank belongs to
#: the one before.
PICTURES = {
    'run': ["mitogen run 'web[1-4]' -- 'hostname; df -h --output=avail /srv | tail -1'"],
    'doctor': ['mitogen doctor web1', 'mitogen doctor web4'],
    'cp': [
        "mitogen cp --sync site/ 'web[1-3]:/srv/site'",
        ' echo changed >> site/page-7.html',
        "mitogen cp --sync site/ 'web[1-3]:/srv/site'",
    ],
    'top': ["mitogen top --once --rows 8 --delay 1 'web[1-3]'"],
}

#: Runs in new namespaces. The loops are something to look at.
HOST = '''
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
mount -t tmpfs tmpfs /srv
cd /srv
hostname web{number}
echo 'import time
while True: sum(range({number} * 100000)); time.sleep(0.05)' >report.py
nice -n 19 python3 report.py --every 5min &
tail -f /dev/null &
exec {server} 2>{folder}/log_{number}
'''

#: As rich has it, without fonts from elsewhere.
SVG = '''<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px;
line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
'''


@contextlib.contextmanager
def hosts(count):
    """Run hosts web1, web2 and so on. Yields a folder with a `bin` for PATH."""
    folder = tempfile.mkdtemp()
    procs = []
    try:
        # There is one that is down, too.
        files = loopback.Files(folder, ['web%d' % number for number in range(1, count + 2)], user='root')
        files.program('mitogen', [sys.executable, '-m', 'mitogen.command'])
        for number in range(1, count + 1):
            server = files.server('sshd_%d' % number, loopback.address_of(number), home='/srv')
            procs.append(subprocess.Popen(
                [loopback.which('unshare'), '-u', '-m', '-p', '-f', '--mount-proc', '--kill-child', 'sh', '-c',
                 HOST.format(number=number, folder=folder, server=' '.join(server))]))
        for number in range(1, count + 1):
            while True:
                with contextlib.suppress(OSError):
                    with socket.create_connection((loopback.address_of(number), files.port)):
                        break
                time.sleep(0.05)
        yield folder
    finally:
        for proc in procs:
            proc.kill()
            proc.wait()
        shutil.rmtree(folder)


def on_terminal(line, folder):
    """Run a line of the shell on a terminal, and return what it has written."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 40, COLUMNS, 0, 0))
    env = {'PATH': os.path.join(folder, 'bin') + ':' + os.environ['PATH'], 'TERM': 'xterm-256color', 'LANG': 'C.UTF-8',
           'HOME': folder}
    # Processes on the hosts are named after the machine that has started them.
    words = [loopback.which('unshare'), '-u', 'sh', '-c', 'hostname laptop; ' + line]
    proc = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=folder,
                            start_new_session=True)
    os.close(theirs)
    found = b''
    with contextlib.suppress(OSError):
        while True:
            data = os.read(ours, 65536)
            if not data:
                break
            found += data
    os.close(ours)
    proc.wait()
    return found.decode()


def last_screen(text):
    """Return the lines that stay on the screen; the line of progress is written anew again and
    again."""
    lines = []
    for line in re.sub(r'\r+\n', '\n', text).split('\n'):
        lines.append(re.split(r'\r', line)[-1].replace('\x1b[K', ''))
    while lines and not lines[-1]:
        lines.pop()
    return lines


def picture(name, lines, folder):
    from rich.console import Console
    from rich.text import Text
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, 'w'), force_terminal=True, color_system='truecolor',
                      legacy_windows=False)
    for number, line in enumerate(lines):
        shown = last_screen(on_terminal(line.strip(), folder))
        if number and not line.startswith(' '):
            console.print()
        console.print(Text('$ ' + line.strip(), 'bold'))
        for row in shown:
            check(row, folder)
            console.print(Text.from_ansi(row), overflow='fold')
    svg = console.export_svg(title='mitogen', code_format=SVG, unique_id=name)
    path = os.path.join(FOLDER, 'mitogen-%s.svg' % (name,))
    with open(path, 'w') as fp:
        fp.write('\n'.join(part.rstrip() for part in svg.split('\n') if part.strip()) + '\n')
    print('%s: %d bytes' % (os.path.relpath(path, ROOT), os.path.getsize(path)))


def check(row, folder):
    """Nothing of this machine is to be seen."""
    for secret in (folder, ROOT, socket.gethostname(), os.path.expanduser('~') + '/', sys.prefix):
        if re.search(r'(?<!\w)%s(?!\w)' % (re.escape(secret),), row):
            raise SystemExit('a picture would show %r: %r' % (secret, row))


def main():
    wanted = sys.argv[1:] or list(PICTURES)
    with hosts(3) as folder:
        os.mkdir(os.path.join(folder, 'site'))
        for number in range(40):
            with open(os.path.join(folder, 'site', 'page-%d.html' % number), 'w') as fp:
                fp.write('<p>%d</p>\n' % (number,) * 500)
        for name in wanted:
            picture(name, PICTURES[name], folder)


if __name__ == '__main__':
    main()
