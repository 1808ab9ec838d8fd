# SPDX-License-Identifier: BSD-3-Clause
"""
``mitogen doctor``: each stage of the way to a host, how long it takes, and what to do about one
that fails.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Optional

from mitogen import _cli
from mitogen._cli import connecting, display, paint, values

#: Bytes that are sent to find out how quickly they travel.
BULK = 4 * 1048576


class Failed(Exception):
    """
    A stage failed.

    :param str text: why, in a line.
    :param str hint: what to do.
    """
    def __init__(self, text: str, hint: Optional[str] = None) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


def add_commands(subparsers: Any) -> None:
    """
    Add ours to the parser of ``mitogen``.
    """
    parser = _cli.add_parser(
        subparsers, 'doctor', description='Exit status: 0 if all is well with every host, 255 otherwise.',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    connecting.add_options(parser)
    parser.set_defaults(func=doctor, parser=parser)


def doctor(options: Any, rest: list[str]) -> int:
    """
    Look at each host, one after the other, and return the exit status.
    """
    work = connecting.Work(options)
    return max(connecting.UNREACHED if _look_at(work, name) else 0 for name in work.names)


def _look_at(work: connecting.Work, name: str) -> bool:
    """
    Print a line for each stage of one host, and return whether one failed.
    """
    painted = paint.Paint(sys.stdout)
    print(painted('%s:' % (display.label(name),), paint.TITLE), flush=True)
    stages = _stages(work, name)
    while True:
        started = time.monotonic()
        try:
            stage, text = next(stages)
        except StopIteration:
            return False
        except Failed as e:
            text = display.clean(e.text.encode('utf-8', 'replace')).decode()
            print(painted('  %-11s %s' % ('FAILED', text), paint.FAILED))
            if e.hint:
                print(painted('  %-11s %s' % ('remedy', e.hint), paint.HINT))
            return True
        # Much of it is in the words of the host.
        text = display.clean(text.encode('utf-8', 'replace')).decode()
        took = '%7.0f ms' % (1000 * (time.monotonic() - started),)
        print('  %s %-50s %s' % (painted('%-11s' % (stage,), paint.GOOD), text, painted(took, paint.QUIET)), flush=True)


def _stages(work: connecting.Work, name: str) -> Iterator[tuple[str, str]]:
    """
    Go the way to a host, and yield (name of a stage, what is known after it).

    :raises Failed: it leads no further.
    """
    import mitogen
    from mitogen._tree import target, tree as trees
    hops = target.parse(name)
    yield 'target', ', then '.join(_described(method, options) for method, options in hops)
    if hops[0][0] == 'ssh':
        yield from _look_at_ssh(hops[0][1])
    with mitogen.Tree(output=None) as tree:
        try:
            host = work.connect(tree, trees._Shared(), name)
        except mitogen.ConnectError as e:
            yield from _last_words(e)
            raise Failed('%s [after: %s]' % (display.advice(e.reason), e.stage or 'nothing'), _remedy(e))
        yield 'connected', 'all stages up to a Python that takes orders'
        try:
            yield from _look_around(host)
        except (mitogen.core.Error, TypeError, OverflowError) as e:
            raise Failed('its answer is not that of a host: %s' % (e,), None)


def _described(method: str, options: dict[str, Any]) -> str:
    words = ['%s %s' % (key, value) for key, value in options.items()]
    return method + (' (%s)' % (', '.join(words),) if words else '')


def _look_at_ssh(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """
    Ask the ssh client where it would go, and go there without it.
    """
    settings = _ssh_settings(options)
    host, port = settings.get('hostname', options['hostname']), settings.get('port', '22')
    yield 'ssh_config', '%s@%s, port %s' % (settings.get('user', '?'), host, port)
    for key in 'proxyjump', 'proxycommand':
        if settings.get(key, 'none') != 'none':
            yield key, settings[key]
            # The host need not be reachable from here.
            return
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as e:
        raise Failed('no address for %s: %s' % (host, e.strerror), 'see the spelling, /etc/hosts, DNS, and '
                     'HostName in ssh_config')
    yield 'address', found[0][4][0]
    try:
        with socket.create_connection((host, int(port)), timeout=10) as sock:
            sock.settimeout(10)
            banner = sock.recv(255).split(b'\r\n')[0]
    except OSError as e:
        raise Failed('port %s of %s: %s' % (port, host, e.strerror or e),
                     'is the machine up, does its sshd listen on this port, is a firewall between?')
    yield 'port', display.clean(banner[:50]).decode()


def _ssh_settings(options: dict[str, Any]) -> dict[str, str]:
    """
    Return the ssh client's settings for a host: keyword -> the first value.
    """
    command = ['ssh', '-G']
    if 'port' in options:
        command += ['-p', str(options['port'])]
    if 'username' in options:
        command += ['-l', options['username']]
    try:
        done = subprocess.run(command + ['--', options['hostname']], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=20)
    except FileNotFoundError:
        raise Failed('there is no ssh client here', 'install one: the package openssh-client')
    except subprocess.TimeoutExpired:
        raise Failed('ssh -G does not answer', 'see Match exec in ssh_config')
    if done.returncode:
        raise Failed('ssh -G: ' + done.stderr.strip().splitlines()[-1], 'see ssh_config')
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(' ')
        found.setdefault(key, value)
    return found


def _last_words(error: Any) -> Iterator[tuple[str, str]]:
    lines = [line for line in (error.output or '').splitlines() if line.strip()]
    for line in lines[-5:]:
        yield 'it said', display.clean(line.encode('utf-8', 'replace')).decode()


def _remedy(error: Any) -> Optional[str]:
    import mitogen
    if isinstance(error, mitogen.ConnectTimeout):
        return 'try it by hand; more time: --connect-timeout'
    if isinstance(error, mitogen.AuthError):
        return 'try it by hand: does "ssh HOST true", or sudo, ask for something? Keys: ssh-add -l; sudo: -K'
    if isinstance(error, mitogen.HostKeyError):
        return 'connect by hand once with ssh, and compare the key'
    if isinstance(error, mitogen.NoPython):
        return 'name an interpreter: --python /usr/bin/python3, or install one'
    return None


def _look_around(host: Any) -> Iterator[tuple[str, str]]:
    """
    Find out the host's facts, and the speed of the connection.
    """
    import mitogen._facts
    from mitogen.core import Blob
    before = time.time()
    told = host.call(mitogen._facts.about)
    after = time.time()
    facts = values.facts_of(told, ('python', 'executable', 'core', 'user', 'hostname', 'time'))
    yield 'python', '%s at %s, %s core' % (facts['python'], facts['executable'], facts['core'])
    yield 'user', '%s on %s' % (facts['user'], facts['hostname'])
    offset = facts['time'] - (before + after) / 2
    yield 'clock', 'as here' if abs(offset) < max(1, after - before) else '%+.1f s from here' % (offset,)
    started = time.monotonic()
    for _ in range(10):
        host.call(int)
    yield 'round trip', '%.2f ms' % (100 * (time.monotonic() - started),)
    started = time.monotonic()
    host.call(len, Blob(os.urandom(BULK)))
    yield 'rate', '%.0f MB/s to the host' % (BULK / 1e6 / (time.monotonic() - started),)
    if facts['user'] != 'root':
        done = host.run(['sudo', '-n', 'true'])
        yield 'sudo', 'without a password' if done.returncode == 0 else 'not without a password'
