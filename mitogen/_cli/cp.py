# SPDX-License-Identifier: BSD-3-Clause
"""
``mitogen cp``: files and trees to many hosts, and from them.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from mitogen import _cli
from mitogen._cli import connecting, display, hosts, progress

EPILOG = '''
A path of a host is HOST:PATH; without a host it is here. Hosts are written as for "mitogen run", so ranges, @FILE and
patterns may stand before the colon. A path that has a colon itself is written ./a:b.

A folder travels with all that is in it. "build/", with a slash, is the content of build, and "build" is the folder: the
path at the end becomes it, or it is put into that if that ends in a slash, too. Modes are kept, symbolic links stay
links, and what else is there stays. Each file appears whole and at once. From several hosts, each gets a folder of its
name.

With --sync only what differs is sent: a file of the same size and time is the same, and of another one those blocks are
sent that the host has not. Times and holes are kept, checksums are compared at the end, and what goes to several hosts
is read and compressed once. With --delete what is in a folder of the target, and not in that of the source, is removed
as soon as all files of that folder have arrived, as by "rsync -a --delete".

exit status: 0; 1 if something could not be copied somewhere, 255 if a host could not be reached, 2 for a wrong command
line, 130 after Ctrl-C, 143 after SIGTERM; nothing half-written is left then.

examples:
  mitogen cp build/ web1:/srv/app web2:/srv/app
  mitogen cp nginx.conf 'web[1-20]:/etc/nginx/' --sudo
  mitogen cp --resume image.qcow2 web1:/var/lib/images/
  mitogen cp --delete site/ 'web[1-20]:/srv/site'
  mitogen cp web1:/etc/nginx docker:web:/etc/nginx sites/
'''


class Place(NamedTuple):
    """
    A path, and the host that it is of; None for a path here.
    """
    host: Optional[str]
    path: str


#: The host stands before its path: up to the first colon before a slash or a tilde, or else up to
#: the last one.
_OF_HOST = re.compile(r'(?:(?P<host>.+?):(?P<path>(?:/(?!/)|~).*)|(?P<name>.+):(?P<relative>[^:]*))\Z', re.S)


def parse(word: str) -> list[Place]:
    """
    Return what a word stands for: a path here, or a path of each of some hosts.

    :raises HostError: the host in it is none.
    """
    if ':' not in word or ('/' in word.partition(':')[0] and not word.startswith('@')):
        return [Place(None, word)]
    match = _OF_HOST.match(word)
    if match is None:
        raise hosts.HostError('%r: there is no host before the colon; for a file that is here write ./%s' % (word, word))
    host, path = match['host'] or match['name'], match['path'] or match['relative'] or '.'
    from mitogen._tree import target
    if host.rpartition('/')[2] in ('local', 'sudo', 'su', 'doas'):
        host += ':'
    elif host == 'slurm' and ':' in path:
        # A node of the allocation that this program is in.
        node, _, path = path.partition(':')
        host, path = 'slurm:' + node, path or '.'
    elif host in target.SCHEMES:
        raise hosts.HostError('%r: there is no path in it; write %s:PATH' % (word, word))
    return [Place(name, path) for name in hosts.expand([host])]


class Plan:
    """
    The work on each host.

    :ivar puts: host -> pairs of a path here and the path there.
    :ivar gets: host -> pairs of a path there and the path here.
    """
    def __init__(self) -> None:
        self.puts: dict[str, list[tuple[str, str]]] = {}
        self.gets: dict[str, list[tuple[str, str]]] = {}


def plan(words: list[str]) -> Plan:
    """
    Return what a command line asks for: paths here, and then paths of hosts; or paths of hosts, and
    a path here.

    :raises ValueError: it is neither.
    """
    groups = [parse(word) for word in words]
    here = [places[0].host is None for places in groups]
    places = [place for group in groups for place in group]
    if len(groups) < 2:
        raise ValueError('cp needs a source and a destination')
    if all(here):
        raise ValueError('no path names a host: write HOST:PATH')
    if here[0] and here == sorted(here, reverse=True):
        return _puts([place.path for place in places if place.host is None], [place for place in places if place.host])
    if here == [False] * (len(here) - 1) + [True]:
        return _gets(places[:-1], places[-1].path)
    if not any(here):
        raise ValueError('both paths are on hosts: copy to a local folder first, and from there')
    raise ValueError(
        'sources come first and the destination last: local paths and then HOST:PATH, or the other way round')


def _puts(sources: list[str], targets: list[Place]) -> Plan:
    for source in sources:
        try:
            os.stat(source)
        except FileNotFoundError:
            raise ValueError('%s: there is no such file here' % (source,)) from None
        except OSError as e:
            raise ValueError('%s: %s' % (source, e.strerror)) from None
    found = Plan()
    for host, path in targets:
        # Several go into a folder.
        path = path if len(sources) == 1 else os.path.join(path, '')
        found.puts.setdefault(str(host), []).extend((source, path) for source in sources)
    return found


def _gets(sources: list[Place], target: str) -> Plan:
    found = Plan()
    several = len({place.host for place in sources}) > 1
    for host, path in sources:
        folder = target
        if several:
            folder = os.path.join(target, folder_of(str(host)), '')
        elif len(sources) > 1:
            folder = os.path.join(target, '')
        found.gets.setdefault(str(host), []).append((path, folder))
    return found


def folder_of(host: str) -> str:
    """
    Return the name of the folder for what comes from one of several hosts.
    """
    name = display.label(host).replace('/', '_')
    return name if name.strip('.') else '_' + name


def add_commands(subparsers: Any) -> None:
    """
    Add ours to the parser of ``mitogen``.
    """
    parser = _cli.add_parser(
        subparsers, 'cp', epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='mitogen cp [options] PATH... HOST:PATH...\n       mitogen cp [options] HOST:PATH... PATH')
    parser.add_argument('words', nargs='+', metavar='PATH', help='a path here, or HOST:PATH. HOST is ' + hosts.HELP)
    connecting.add_ways(parser)
    parser.add_argument(
        '-C', '--compress', action='store_true', help='compress, which is for slow networks only')
    parser.add_argument('--sync', action='store_true', help='send only what differs, and keep times')
    parser.add_argument(
        '--checksum', action='store_true', help='the same, and compare the content of files of the same size and time')
    parser.add_argument(
        '--resume', action='store_true',
        help='the same; a file that is broken off stays as a part, with which the next --resume goes on')
    parser.add_argument(
        '--delete', action='store_true',
        help='the same as --sync, and remove what the folders of the target have and those of the source have not')
    parser.add_argument('-q', '--quiet', action='store_true', help='show neither progress nor what was copied; both are shown on a terminal only')
    parser.set_defaults(func=run, parser=parser)


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """
    Have a terminal that goes, and a wish to end, leave nothing half-written, as Ctrl-C does.
    """
    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)
    before = {}
    for number in signal.SIGTERM, signal.SIGHUP:
        # If the caller has the signal ignored, as nohup does, it stays ignored.
        if signal.getsignal(number) == signal.SIG_DFL:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _told_by_us() -> Iterator[None]:
    """
    Have the log not tell what is not copied, which the command does.
    """
    def is_other(record: logging.LogRecord) -> bool:
        return record.module != 'meter'
    logger = logging.getLogger('mitogen.tree')
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


class _Copies:
    """
    How files are copied: all.
    """
    def nothing(self) -> Any:
        """
        Return how much is copied at first.
        """
        import mitogen
        return mitogen.Copied()

    def put(self, host: Any, source: str, target: str, progress: Any) -> Any:
        return host.put(source, target, progress=progress)

    def get(self, host: Any, source: str, target: str, progress: Any) -> Any:
        return host.get(source, target, progress=progress)


class _Syncs(_Copies):
    """
    How files are copied: only what differs.
    """
    def __init__(self, options: Any) -> None:
        from mitogen._tree import shared_blocks
        self._ways = options.checksum, options.resume, options.compress, options.delete
        # All hosts get what was compressed once, and their clients of ssh do not compress it again.
        options.compress = False
        self._shared = shared_blocks.SharedBlocks()

    def nothing(self) -> Any:
        import mitogen
        return mitogen.Synced()

    def put(self, host: Any, source: str, target: str, progress: Any) -> Any:
        from mitogen._tree import sync
        return sync.put(host, source, target, *self._ways, progress, self._shared)

    def get(self, host: Any, source: str, target: str, progress: Any) -> Any:
        from mitogen._tree import sync
        return sync.get(host, source, target, *self._ways, progress)


def summary(value: dict[str, Any]) -> str:
    """
    Return what was copied, for a person.
    """
    text = '%d file%s copied' % (value['files'], '' if value['files'] == 1 else 's')
    if 'sent' not in value:
        return '%s, %s' % (text, progress.size(value['bytes']))
    text = '%s, %s sent, %d the same' % (text, progress.size(value['sent']), value['same'])
    return '%s, %d removed' % (text, value['removed']) if value['removed'] else text


def run(options: Any, rest: list[str]) -> int:
    """
    Do what the command line says and return the exit status.
    """
    wanted = plan(options.words + rest)
    options.hosts = list(wanted.puts or wanted.gets)
    is_sync = options.sync or options.checksum or options.resume or options.delete
    copies = _Syncs(options) if is_sync else _Copies()
    work = connecting.Work(options)
    shown = work.display()
    bar = progress.Progress(None) if options.json or options.quiet else progress.Progress.on_terminal()
    shown.before_output = bar.clear
    for host in wanted.gets if len(wanted.gets) > 1 else ():
        os.makedirs(wanted.gets[host][0][1], exist_ok=True)

    def job(host: Any, outcome: display.Outcome) -> None:
        value = dict(vars(copies.nothing()))
        pairs = [(copies.put, pair) for pair in wanted.puts.get(outcome.host, ())]
        pairs += [(copies.get, pair) for pair in wanted.gets.get(outcome.host, ())]
        told = bar.of(outcome.host)
        for copy, (source, target) in pairs:
            copied = vars(copy(host, source, target, told))
            for line in copied['skipped']:
                text = 'mitogen: not copied: %s\n' % (line,)
                shown.write(outcome.host, display.STDERR, text.encode('utf-8', 'replace'))
            value = {name: value[name] + copied[name] for name in value}
        outcome.status = 0
        if options.json:
            outcome.value = value
        elif not options.quiet and sys.stdout.isatty():
            outcome.value = summary(value)
    with _ending_in_order(), _told_by_us():
        try:
            outcomes = work.run(job, shown)
        finally:
            bar.clear()
    if not options.json:
        connecting.summary(outcomes)
    return connecting.status(outcomes)
