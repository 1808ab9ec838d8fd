# SPDX-License-Identifier: BSD-3-Clause
"""
``mitogen tree``: the connections of a tree, with the bytes that have travelled, and those that
wait.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import glob
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Optional

import mitogen.core
from mitogen import _cli
from mitogen._cli import connecting, display, hosts, paint, progress, values

EPILOG = '''
With hosts: connects them, and shows the way to each. Without: shows the trees of programs that run now, under this
user, and that listen (mitogen.unix.Listener) at a path in the usual folder; --socket names another path. A running
program is disturbed little: it is asked once, and of its hosts only those are that have connected others. One that does
not answer in time, because a function runs there, is called busy.

Of each connection is shown, as the nearer end counts: bytes that came in, bytes that went out, and what waits to be
sent, with the threads that wait for it.

exit status: 0; 1 if there is no tree, 255 if a host could not be reached, 2 for a wrong command line, 130 after Ctrl-C.
'''

#: Contexts that a tree is shown with at most, and levels of it that are asked: a host may tell of a
#: long chain.
NODES_MAX, LEVELS_MAX = 100000, 50

#: All levels together may take this many times as long as one level.
SURVEY_TIMEOUTS = 4

COUNTERS = 'messages_in', 'bytes_in', 'messages_out', 'bytes_out', 'forwarded', 'queued_bytes', 'blocked_senders'
FACTS = 'pid', 'python', 'core', 'hostname', 'user'


def add_commands(subparsers: Any) -> None:
    """
    Add ours to the parser of ``mitogen``.
    """
    parser = _cli.add_parser(
        subparsers, 'tree', epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('hosts', nargs='*', metavar='HOST', help=hosts.HELP)
    connecting.add_ways(parser)
    parser.add_argument('--socket', metavar='PATH', help='where a program listens')
    parser.add_argument('--timeout', type=connecting.seconds, default=5, metavar='SECONDS', help='for a host to tell (5)')
    parser.set_defaults(func=tree, parser=parser)


@dataclasses.dataclass
class Node:
    """
    A context of the tree.

    :ivar method: how it was connected, None for the root.
    :ivar facts: what it tells of itself, empty if it was not asked.
    :ivar counters: of the connection to it, empty if they are not known.
    :ivar note: why it tells nothing.
    """
    id: int
    name: str
    method: Optional[str] = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    counters: dict[str, int] = dataclasses.field(default_factory=dict)
    note: Optional[str] = None
    children: list[Node] = dataclasses.field(default_factory=list)
    routes: frozenset[int] = frozenset()

    def take(self, told: Any, known: set[int]) -> None:
        """
        Take what it tells of itself and its links. It may tell anything, and is believed only about
        contexts that were reached through it before.

        :param known: contexts that have a place in the tree.
        :raises ValueError: it is no report.
        """
        try:
            self.facts = {name: values.fact(told[name]) for name in FACTS}
            left = NODES_MAX
            for link in told['links'][:NODES_MAX]:
                found = Node(_number(link['id']), _text(link['name']), _text(link['method']))
                if found.id in known or found.id not in self.routes:
                    continue
                # One list may be in many links.
                left -= len(link['routes'])
                if left < 0:
                    raise TypeError()
                found.counters = {name: _number(link[name]) for name in COUNTERS}
                found.routes = self.routes.intersection(map(_number, link['routes'])) - {found.id}
                known.add(found.id)
                self.children.append(found)
        except (KeyError, TypeError, AttributeError):
            raise ValueError('its report cannot be read') from None
        self.children.sort(key=lambda node: node.id)

    def fill(self, known: set[int]) -> None:
        """
        Give a place below this context to those that are somewhere behind it, but behind none of
        the contexts that it has named.
        """
        for context_id in sorted(self.routes.difference(known, *(child.routes for child in self.children))):
            known.add(context_id)
            self.children.append(Node(context_id, 'context %d' % (context_id,), note='somewhere behind this host'))


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise TypeError()
    return value


def _text(value: Any) -> str:
    return values.text(value, 200)


def survey(router: Any, root: Node, timeout: float, everyone: bool) -> None:
    """
    Complete a tree, level by level: ask contexts for their links.

    :param everyone: ask also those that have no others behind them.
    """
    import mitogen._links
    known = {root.id} | {node.id for node in root.children}
    level = root.children
    end = time.monotonic() + SURVEY_TIMEOUTS * timeout
    for _ in range(LEVELS_MAX):
        if not level:
            return
        asked = [node for node in level if node.routes or everyone]
        answers = [(node, router.context_by_id(node.id).call_async(mitogen._links.links)) for node in asked]
        deadline = min(time.monotonic() + timeout, end)
        for node, answer in answers:
            try:
                node.take(answer.get(max(0, deadline - time.monotonic())).unpickle(), known)
            except mitogen.core.TimeoutError:
                node.note = 'busy'
            except (mitogen.core.Error, ValueError) as e:
                node.note = _text(str(e).partition('\n')[0])
        for node in asked:
            node.fill(known)
        level = [child for node in asked for child in node.children if child.note is None]
    for node in level:
        node.note = 'too deep to be asked'


def lines(node: Node, painted: paint.Paint, before: str = '', mark: str = '') -> Iterator[str]:
    """
    Yield the lines of a tree.
    """
    name = painted.host(str(node.id), node.name) if node.method else painted(node.name, paint.TITLE)
    yield painted(before + mark, paint.QUIET) + '  '.join(filter(None, [name, *_about(node, painted)]))
    below = before + {'├── ': '│   ', '└── ': '    '}.get(mark, '')
    for child in node.children:
        yield from lines(child, painted, below, '└── ' if child is node.children[-1] else '├── ')


def _about(node: Node, painted: paint.Paint) -> Iterator[str]:
    if node.facts:
        yield 'pid %(pid)s, %(user)s on %(hostname)s, Python %(python)s, %(core)s core' % node.facts
    if node.counters:
        yield painted('%s, in %s, out %s, queued %s' % (node.method, *(
            progress.size(node.counters[name]) for name in ('bytes_in', 'bytes_out', 'queued_bytes'))), paint.QUIET)
        if node.counters['blocked_senders']:
            yield painted('%d threads wait' % (node.counters['blocked_senders'],), paint.HINT)
    if node.note:
        yield painted(node.note, paint.HINT)


def _as_json(node: Node) -> dict[str, Any]:
    return dict(
        node.counters, **node.facts, id=node.id, name=node.name, method=node.method, note=node.note,
        children=[_as_json(child) for child in node.children])


def _show(node: Node, options: Any) -> None:
    if options.json:
        print(json.dumps(_as_json(node)))
        return
    for line in lines(node, paint.Paint(sys.stdout)):
        print(line)


def root_of(told: Any, name: str) -> Node:
    """
    Return the root for what a process tells of itself.
    """
    root = Node(_number(told['id']), name)
    root.routes = frozenset(_number(i) for link in told['links'] for i in [link['id']] + list(link['routes']))
    root.take(told, {root.id, mitogen.context_id})
    return root


def tree(options: Any, rest: list[str]) -> int:
    """
    Obey the command line and return the exit status.
    """
    if options.hosts and options.socket:
        options.parser.error('name hosts, or a socket')
    if options.hosts:
        return _of_hosts(options)
    paths = [options.socket] if options.socket else sockets()
    shown = [_of_program(options, path) for path in paths]
    if not shown:
        print('mitogen: no program of this user listens in the usual folder. Name hosts, or its socket: --socket PATH',
              file=sys.stderr)
    return 0 if any(shown) else 1


def sockets() -> list[str]:
    """
    Return the paths in the usual folder at which programs listen.
    """
    import mitogen.unix
    folder = os.path.dirname(mitogen.unix.make_socket_path())
    return [path for path in sorted(glob.glob(os.path.join(glob.escape(folder), 'mitogen_unix_*.sock')))
            if not mitogen.unix.is_path_dead(path)]


def _of_program(options: Any, path: str) -> bool:
    """
    Show the tree of a program that listens at a path, and return whether that was possible.
    """
    import mitogen.unix
    try:
        router, context = mitogen.unix.connect(path)
    except mitogen.unix.Error as e:
        print('mitogen: %s' % (mitogen.core._printable(str(e)),), file=sys.stderr)
        return False
    try:
        told = context.send_async(mitogen.core.Message(handle=mitogen.unix._LINKS)).get(options.timeout).unpickle()
        root = root_of(told, 'program %s at %s' % (_text(told['program']), display.clean(os.fsencode(path)).decode()))
        survey(router, root, options.timeout, False)
    except (mitogen.core.Error, KeyError, TypeError, ValueError) as e:
        print('mitogen: %s: it tells nothing of its tree: %s' % (path, _text(e)), file=sys.stderr)
        return False
    finally:
        router.broker.shutdown()
        router.broker.join()
    _show(root, options)
    return True


def _of_hosts(options: Any) -> int:
    """
    Connect hosts and show the tree. Return the exit status.
    """
    import mitogen
    import mitogen._links
    from mitogen._tree import tree as trees
    work = connecting.Work(options)
    shared = trees._Shared()
    down = []
    with mitogen.Tree(output=None) as hosts_tree:
        pool = concurrent.futures.ThreadPoolExecutor(options.jobs, 'mitogen.host')
        try:
            futures = [pool.submit(work.connect, hosts_tree, shared, name) for name in work.names]
            for name, future in zip(work.names, futures):
                error = future.exception()
                if error is not None:
                    down.append(display.Outcome(name, error=error))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        root = root_of(mitogen._links.links(router=hosts_tree), 'mitogen')
        survey(hosts_tree, root, options.timeout, True)
        _show(root, options)
    teller = display.Display()
    for outcome in down:
        teller.done(outcome)
    return connecting.UNREACHED if down else 0
