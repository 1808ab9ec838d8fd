# SPDX-License-Identifier: BSD-3-Clause
"""
Work on many hosts at a time: the options that name them, and a thread for each host.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import getpass
import sys
import threading
import time
from typing import Any, Callable, Optional

from mitogen._cli import display, hosts, paint

#: Exit status: hosts that could not be reached, as ssh has it; Ctrl-C; a wrong command line.
UNREACHED, INTERRUPTED, WRONG = 255, 130, 2


def add_options(parser: argparse.ArgumentParser) -> None:
    """
    Add the arguments of a command that works with hosts: the hosts, and how they are connected.
    """
    parser.add_argument('hosts', nargs='+', metavar='HOST', help=hosts.HELP)
    add_ways(parser)


def add_ways(parser: argparse.ArgumentParser) -> None:
    """
    Add the options that say how hosts are connected, for a command that names the hosts in its own
    way.
    """
    parser.add_argument('-j', '--jobs', type=int, default=32, metavar='N', help='hosts at a time (32)')
    add_way(parser)
    parser.add_argument('--json', action='store_true', help='print a JSON object for each host')


def add_way(parser: argparse.ArgumentParser) -> None:
    """
    Add the options that say how one host is connected.
    """
    parser.set_defaults(jobs=32, json=False)
    parser.add_argument(
        '--connect-timeout', type=seconds, default=30, metavar='SECONDS', help='for a host to be ready (30)')
    parser.add_argument('--sudo', action='store_true', help='be root there, by sudo')
    parser.add_argument('--sudo-user', metavar='USER', help='be another user there, by sudo')
    parser.add_argument('-K', '--ask-sudo-password', action='store_true', help='ask here for the password of sudo')
    parser.add_argument('--python', metavar='PATH', help='the interpreter over there, which is searched for otherwise')


def seconds(text: str) -> float:
    """
    Return an argument that is a time.
    """
    value = float(text)
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError('%s is no time to wait: it must be more than 0' % (text,))
    return value


class Interrupted(Exception):
    """
    The work on a host was ended from here.
    """


class Work:
    """
    One job on each host of a command line.

    :param options: of the command line.
    """
    def __init__(self, options: Any) -> None:
        if options.jobs < 1:
            options.parser.error('--jobs must be at least 1')
        self._options = options
        self.names = hosts.expand(options.hosts)
        self._sudo_user: Optional[str] = options.sudo_user or ('root' if options.sudo else None)
        self._password = getpass.getpass('Password for sudo: ') if options.ask_sudo_password else None

    def display(self, grouped: bool = False) -> display.Display:
        """
        Return the display that the command line asks for.
        """
        if self._options.json:
            return display.Json()
        if grouped:
            return display.Grouped()
        if len(self.names) == 1:
            return display.Display()
        return display.Prefixed(max(len(display.label(name)) for name in self.names))

    def connect(self, tree: Any, shared: Any, name: str) -> Any:
        """
        Connect one host and return it.

        :param shared: the hosts on the way to others.
        :raises ConnectError: it could not be connected.
        """
        from mitogen._tree import target, tree as trees
        text, options = name, {}
        if self._options.python:
            options['python_path'] = self._options.python
        if self._sudo_user:
            text = '%s/sudo:%s' % (name.rstrip('/'), self._sudo_user)
            if self._password:
                options['password'] = self._password
        clock = trees._Clock(self._options.connect_timeout)
        hops = target.parse(text)
        if not getattr(self._options, 'compress', True):
            hops = [(method, dict(own, compression=False) if method == 'ssh' else own) for method, own in hops]
        return tree._follow(hops, shared, name, None, clock, dict(options, name=name))

    def run(self, job: Callable[[Any, display.Outcome], None], shown: display.Display) -> list[display.Outcome]:
        """
        Connect each host, do the job on it, and disconnect it. Return the outcomes, in the order of
        the hosts.

        :param job: called with a host and its outcome, on a thread for each host.
        """
        import mitogen
        from mitogen._tree import tree as trees
        outcomes = [display.Outcome(name) for name in self.names]
        tree = mitogen.Tree(output=None)
        shared = trees._Shared()
        interrupted = threading.Event()

        def work(outcome: display.Outcome) -> None:
            outcome.started = time.monotonic()
            try:
                with self.connect(tree, shared, outcome.host) as host:
                    job(host, outcome)
            except (display.OutputError, BrokenPipeError):
                raise
            except Exception as e:
                # There is nothing else to tell about a host that is lost because we end it.
                outcome.error = Interrupted('interrupted') if interrupted.is_set() else e
            outcome.seconds = time.monotonic() - outcome.started
            shown.done(outcome)

        pool = concurrent.futures.ThreadPoolExecutor(self._options.jobs, 'mitogen.host')
        futures = [pool.submit(work, outcome) for outcome in outcomes]
        try:
            for future in futures:
                future.result()
        except BaseException:
            interrupted.set()
            raise
        finally:
            # At Ctrl-C hosts end what they run, and then themselves.
            pool.shutdown(wait=False, cancel_futures=True)
            tree.close()
        return outcomes


def status(outcomes: list[display.Outcome]) -> int:
    """
    Return the exit status of the command: that of the only host, or 0 if all is well, 255 if some
    host could not be reached, and otherwise 1.
    """
    import mitogen.core
    lost = mitogen.core.StreamError, mitogen.core.ChannelError
    if any(isinstance(outcome.error, lost) for outcome in outcomes):
        return UNREACHED
    if len(outcomes) == 1 and (outcomes[0].error is None or outcomes[0].status):
        code = outcomes[0].status or 0
        # As a shell has it.
        return code if code >= 0 else 128 - code
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def summary(outcomes: list[display.Outcome]) -> None:
    """
    Tell which of several hosts failed.
    """
    failed = [outcome.label for outcome in outcomes if not outcome.ok]
    if failed and len(outcomes) > 1:
        shown = ' '.join(failed[:20]) + (' ...' if len(failed) > 20 else '')
        text = 'mitogen: %d of %d hosts failed: %s' % (len(failed), len(outcomes), shown)
        print(paint.Paint(sys.stderr)(text, paint.FAILED), file=sys.stderr)
