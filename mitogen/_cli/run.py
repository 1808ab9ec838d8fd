# SPDX-License-Identifier: BSD-3-Clause
"""
``mitogen run``: a command, a script, a module or a function, on many hosts.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import sys
from typing import Any, Callable, Optional

from mitogen import _cli
from mitogen._cli import connecting, display, values

EPILOG = '''
After "--" comes what to run:
  several words     a program over there, with its arguments, as they are
  one word          a line for the shell over there: -- 'df -h | tail -1'
  NAME.py ...       a script that is here: it, and the modules that it imports, travel to hosts that have neither

exit status: that of the command if there is one host (128 and the number of a signal); otherwise 0, or 1 if it failed
somewhere. 255 if a host could not be reached, 2 for a wrong command line, 130 after Ctrl-C, which also ends what runs.

examples:
  mitogen run web1 web2 -- uptime
  mitogen run 'web[1-20]' --sudo -j 5 -- systemctl restart nginx
  mitogen run docker:web k8s:prod/api-0 -- check.py --verbose
  mitogen run web1 -c 'import sys; print(sys.version)'
  mitogen run web1 web2 --json -m facts:gather
'''


#: Exit status of a command that is not there, and of one that cannot be run, as a shell has it.
NOT_THERE, NOT_RUN = 127, 126

_ERRNO = re.compile(r'\[Errno [0-9]+\] ')


class NotStarted(Exception):
    """
    A host could not start the command. The text says why.
    """


def add_commands(subparsers: Any) -> None:
    """
    Add ours to the parser of ``mitogen``.
    """
    parser = _cli.add_parser(
        subparsers, 'run', epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='mitogen run [options] HOST... (-- COMMAND | -c CODE [-- ARG...] | -m MODULE[:FUNCTION] [-- ARG...])')
    connecting.add_options(parser)
    parser.add_argument('-c', dest='code', metavar='CODE', help='run this text of Python')
    parser.add_argument(
        '-m', dest='module', metavar='MODULE[:FUNCTION]',
        help='run a module as a program, or call its function with the words after "--" and show what it returns')
    parser.add_argument('--timeout', type=connecting.seconds, metavar='SECONDS', help='for what runs, which is ended then')
    parser.add_argument('--group', action='store_true', help='show the output of each host together, at its end')
    parser.add_argument('--stdin', action='store_true', help='give what comes in here to each')
    parser.add_argument('-t', '--terminal', action='store_true', help='give the command a terminal')
    parser.add_argument('--chdir', metavar='FOLDER', help='run the command there')
    parser.add_argument(
        '-e', '--env', action='append', default=[], metavar='NAME=VALUE', help='set a variable of the command')
    parser.set_defaults(func=run, parser=parser)


def run(options: Any, rest: list[str]) -> int:
    """
    Obey the command line and return the exit status.
    """
    from mitogen._tree.errors import RemoteError
    from mitogen._tree.running import _exit_status
    start = _starter(options, rest)
    work = connecting.Work(options)
    shown = work.display(options.group)

    def job(host: Any, outcome: display.Outcome) -> None:
        running = start(host)
        name = outcome.host
        try:
            value = running.follow({
                number: lambda data, number=number: shown.write(name, number, data)  # type: ignore[misc]
                for number in (display.STDOUT, display.STDERR)})
        except RemoteError as e:
            if options.code or options.module or e.errno is None:
                raise
            outcome.status = NOT_THERE if e.errno == errno.ENOENT else NOT_RUN
            raise NotStarted(_ERRNO.sub('', e.message or '')) from None
        if _is_function(options):
            outcome.status, outcome.value = 0, values.checked(value)
        else:
            outcome.status = _exit_status(value, host)
    outcomes = work.run(job, shown)
    if not options.json:
        connecting.summary(outcomes)
    return connecting.status(outcomes)


def _is_function(options: Any) -> bool:
    return bool(options.module) and ':' in options.module


def _starter(options: Any, rest: list[str]) -> Callable[[Any], Any]:
    """
    Return the function that starts the command on a host.
    """
    from mitogen._tree import running
    from mitogen._tree.options import DEFAULT
    limits = DEFAULT.changed({'timeout': options.timeout})
    ways = [bool(options.code), bool(options.module)]
    if all(ways):
        options.parser.error('-c and -m cannot be used together')
    if not any(ways):
        if not rest:
            options.parser.error('there is nothing to run: write it after "--", or -c, or -m')
        if not rest[0].endswith('.py') or (os.sep in rest[0] and not os.path.exists(rest[0])):
            return _process_starter(options, rest, limits)
    for name in 'terminal', 'chdir', 'env':
        if getattr(options, name):
            options.parser.error('--%s is for commands, and not for Python that is here' % (name,))
    if not any(ways):
        source = _read_script(options, rest[0])
        data = _read_stdin(options)
        return lambda host: running.start_script(host, source, rest[0], rest[1:], limits, data=data)
    sys.path.insert(0, os.getcwd())
    if options.code:
        data = _read_stdin(options)
        return lambda host: running.start_script(host, options.code, '-c', rest, limits, data=data)
    if options.stdin:
        options.parser.error('--stdin is for commands and scripts, and not for -m')
    module, colon, function = options.module.partition(':')
    if not colon:
        return _module_starter(module, rest, limits)
    klass, _, name = function.rpartition('.')
    return lambda host: running.start_function(host, (module, klass or None, name), tuple(map(_argument, rest)), limits)


def _module_starter(name: str, rest: list[str], limits: Any) -> Callable[[Any], Any]:
    """
    Return what starts a module as a program: from here if it is one of ours, or else from there.
    """
    import importlib.util
    import sysconfig
    from mitogen._tree import running
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(name + '.__main__')
    except (ImportError, ValueError):
        spec = None
    standard = sysconfig.get_paths()['stdlib']
    own = spec is not None and spec.has_location and not (
        str(spec.origin).startswith(standard + os.sep) and 'site-packages' not in str(spec.origin))
    source = getattr(spec.loader, 'get_source', lambda name: None)(spec.name) if own and spec else None
    if source is None:
        return lambda host: running.start_module(host, name, rest, limits)
    path, package = str(spec.origin), spec.parent  # type: ignore[union-attr]
    return lambda host: running.start_script(host, source, path, rest, limits, package)


def _process_starter(options: Any, rest: list[str], limits: Any) -> Callable[[Any], Any]:
    from mitogen._tree import running
    command = rest[0] if len(rest) == 1 else rest
    data = _read_stdin(options) or b''
    env = dict(_variable(options, text) for text in options.env)
    return lambda host: running.start_process(
        host, command, limits, data=data, env=env, cwd=options.chdir, terminal=options.terminal)


def _read_stdin(options: Any) -> Optional[bytes]:
    """
    Return our standard input, None unless it is wanted.
    """
    return sys.stdin.buffer.read() if options.stdin else None


def _variable(options: Any, text: str) -> tuple[str, str]:
    name, equals, value = text.partition('=')
    if not name or not equals:
        options.parser.error('%r is no variable: write NAME=VALUE' % (text,))
    return name, value


def _read_script(options: Any, path: str) -> str:
    """
    Return the text of a script, and have its modules found beside it.
    """
    import tokenize
    try:
        with tokenize.open(path) as fp:
            text = fp.read()
        compile(text, path, 'exec')
    except OSError as e:
        options.parser.error(
            '%s: %s. To run a script that is over there, begin with its interpreter: -- python3 %s' % (
                path, e.strerror, path))
    except (SyntaxError, UnicodeDecodeError, ValueError) as e:
        options.parser.error('%s is no script of Python: %s' % (path, e))
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    return text


def _argument(text: str) -> Any:
    """
    Return a word as a value: JSON if it is some, or else text.
    """
    try:
        return json.loads(text)
    except ValueError:
        return text
