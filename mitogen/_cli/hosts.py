# SPDX-License-Identifier: BSD-3-Clause
"""
Hosts as they are written on a command line, and the targets that they stand for.
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from typing import Callable

HELP = (
    'a name for ssh, user@host:port, a target such as docker:web, k8s:namespace/pod or ssh://bastion/ssh://web1/sudo:, '
    'slurm:JOB/NODE, slurm:JOB/* for all its nodes, a range web[1-20], a pattern of names in ssh_config "web*", or @FILE with one in each line')

#: Names that one word may stand for.
RANGE_MAX = 100000

_BRACKET = re.compile(r'\[([0-9,-]+)\]')

#: As ClusterShell has it, with a step: web[1-9/2].
_RANGE = re.compile(r'\[([0-9][0-9,/-]*)\]')


class HostError(ValueError):
    """
    A word that stands for no host. The text says why.
    """


def expand(words: Iterable[str], config: str = '~/.ssh/config') -> list[str]:
    """
    Return the targets that words stand for, each once, in order.

    :param config: configuration of ssh that patterns are looked up in.
    :raises HostError: a word stands for none.
    """
    from mitogen._tree import target
    found = list(dict.fromkeys(name for word in words for name in _expand_word(word, config, ())))
    for name in found:
        try:
            target.parse(name)
        except target.TargetError as e:
            raise HostError(str(e)) from None
    return found


def _expand_word(word: str, config: str, files: tuple[str, ...]) -> Iterator[str]:
    """
    Yield what a word stands for.

    :param files: those that it was read from, one from the other.
    """
    if word.startswith('@'):
        path = os.path.realpath(os.path.expanduser(word[1:]))
        if path in files:
            raise HostError('the file of hosts %s names itself' % (path,))
        for line in _lines_of(path):
            yield from _expand_word(line, config, files + (path,))
    elif word.startswith('slurm:') and word.endswith('/*'):
        yield from _nodes_of(word)
    elif '*' in word or '?' in word:
        if _RANGE.search(word):
            raise HostError('%r: a word is a range or a pattern, and not both' % (word,))
        yield from _matching(word, config)
    elif _RANGE.search(word) or _BRACKET.search(word):
        yield from _expand_range(word)
    else:
        yield word


def _lines_of(path: str) -> list[str]:
    try:
        with open(path, encoding='utf-8') as fp:
            lines = [line.partition('#')[0].strip() for line in fp]
    except (OSError, UnicodeDecodeError) as e:
        raise HostError('cannot read the hosts in %s: %s' % (path, getattr(e, 'strerror', None) or e)) from None
    return [line for line in lines if line]


def _expand_range(word: str) -> Iterator[str]:
    if _size(word) > RANGE_MAX:
        raise HostError('the range %r is too large: it has more than %d hosts' % (word, RANGE_MAX))
    try:
        from ClusterShell.NodeSet import NodeSet, NodeSetException
    except ImportError:
        return _numbers(word)
    # There, "@" stands before the name of a group.
    user, at, nodes = word.rpartition('@')
    try:
        return iter([user + at + name for name in NodeSet(nodes)])
    except NodeSetException as e:
        raise HostError('%r is no range: %s' % (word, e)) from None


def _size(word: str) -> int:
    """
    Return how many names the ranges of a word stand for, at most.
    """
    size = 1
    for inside in _RANGE.findall(word):
        size *= sum(max(1, int(last or first) - int(first) + 1) for first, last in re.findall(r'(\d+)(?:-(\d+))?', inside))
    return size


def _numbers(word: str) -> Iterator[str]:
    """
    Yield the names of a range such as web[1-3,07]. The width of a number stays.
    """
    match = _BRACKET.search(word)
    if match is None:
        yield word
        return
    for part in match[1].split(','):
        first, dash, last = part.partition('-')
        last = last if dash else first
        if not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
            raise HostError('%r: %r is no range; write for example web[1-20] or web[1,3,5-7]' % (word, part))
        for number in range(int(first), int(last) + 1):
            yield from _numbers(word[:match.start()] + '%0*d' % (len(first), number) + word[match.end():])


def configured(config: str = '~/.ssh/config') -> list[str]:
    """
    Return the plain names of hosts in a configuration of ssh, each once, in order.
    """
    path = os.path.expanduser(config)
    return list(dict.fromkeys(_names_in(path, os.path.dirname(path), ())))


def _matching(pattern: str, config: str) -> list[str]:
    """
    Return the names that the configuration of ssh has for a pattern.
    """
    user, at, pattern = pattern.rpartition('@')
    names = [name for name in configured(config) if _matches(pattern, name)]
    if not names:
        raise HostError('no host in %s has a name like %s' % (config, pattern))
    return [user + at + name for name in names]


def _nodes_of(word: str) -> list[str]:
    """
    Return a target for each node of an allocation of Slurm: of that with a number, or of the one
    that we are in.
    """
    job = word[len('slurm:'):-len('/*')]
    if job and not re.match(r'[0-9]+(?:[_+][0-9]+)?\Z', job):
        raise HostError('%r: write slurm:JOB/*, where JOB is a number' % (word,))
    job = job or os.environ.get('SLURM_JOB_ID', '')
    if not job:
        raise HostError('%r: this program is in no allocation; write slurm:JOB/*' % (word,))
    nodes = _said(word, 'squeue', '--noheader', '--format=%N', '--jobs=' + job).strip()
    if not nodes:
        raise HostError('%r: the job has no nodes yet, or has ended' % (word,))
    return ['slurm:%s/%s' % (job, name) for name in _said(word, 'scontrol', 'show', 'hostnames', nodes).split()]


def _said(word: str, *command: str) -> str:
    """
    Return what a program of Slurm says.
    """
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace')
    except OSError as e:
        raise HostError('%r: %s: %s' % (word, command[0], e.strerror)) from None
    if done.returncode:
        raise HostError('%r: %s' % (word, done.stderr.strip() or '%s failed' % (command[0],)))
    return done.stdout


#: A test of a name: whether ssh looks at lines for a host of that name.
_Test = Callable[[str], bool]

#: Files that include one another, as many as ssh follows.
_DEPTH_MAX = 16

_KEYWORD = re.compile(r'[ \t\r\f]*"?(\w+)"?[ \t\r\f]*(?:=[ \t\r\f]*)?(.*)', re.S)


def _names_in(path: str, base: str, around: tuple[_Test, ...]) -> Iterator[str]:
    """
    Yield the plain names after ``Host`` in a configuration of ssh, and in what it includes, where
    ssh would obey what follows.

    :param base: folder of relative paths.
    :param around: for each file on the way, the block in which it is included.
    """
    try:
        with open(path, encoding='utf-8', errors='replace') as fp:
            lines = fp.read().split('\n')
    except OSError:
        return
    block: _Test = _always
    for line in lines:
        match = _KEYWORD.match(line)
        keyword, words = (match[1].lower(), _words(match[2])) if match else ('', [])
        if keyword == 'host':
            block = functools.partial(_is_in, words)
            for word in words:
                if not re.search(r'[*?!]', word) and all(test(word) for test in (*around, block)):
                    yield word
        elif keyword == 'match':
            block = functools.partial(_may_match, words)
        elif keyword == 'include' and len(around) < _DEPTH_MAX:
            for word in words:
                for name in sorted(glob.glob(os.path.join(base, os.path.expanduser(word)))):
                    yield from _names_in(name, base, (*around, block))


def _always(name: str) -> bool:
    return True


def _words(text: str) -> list[str]:
    """
    Return the words of a line as ssh reads them: quotes hold blanks, and "#" at the beginning of
    a word ends the line.
    """
    found = []
    for quoted, single, plain, comment in re.findall(r'"([^"]*)"|\'([^\']*)\'|([^\s"\'#][^\s"\']*)|(#)', text):
        if comment:
            break
        found.append(quoted or single or plain)
    return found


def _is_in(patterns: Iterable[str], name: str) -> bool:
    """
    Tell whether patterns match a name: one of them does, and none that is negated.
    """
    matching = [pattern for pattern in patterns if _matches(pattern.lstrip('!'), name)]
    return bool(matching) and not any(pattern.startswith('!') for pattern in matching)


def _matches(pattern: str, name: str) -> bool:
    """
    Tell whether a pattern of ssh, which has no sets of letters, matches a name.
    """
    return fnmatch.fnmatchcase(name, pattern.replace('[', '[[]'))


def _may_match(criteria: list[str], name: str) -> bool:
    """
    Tell whether a block of ``Match`` may be for a name. Only names are looked at: no program is
    run, and it is not known who will log in.
    """
    for keyword, patterns in zip(criteria, criteria[1:]):
        if keyword.lower().lstrip('!') in ('host', 'originalhost'):
            if _is_in(patterns.split(','), name) == keyword.startswith('!'):
                return False
    return True
