# SPDX-License-Identifier: BSD-3-Clause
"""
Hosts as they are written on a command line, and the targets that they stand for.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import subprocess
from collections.abc import Iterable, Iterator

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
        raise HostError('%r is no range that anybody has: it has more than %d hosts' % (word, RANGE_MAX))
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
    return list(dict.fromkeys(_names_in(os.path.expanduser(config), 0)))


def _matching(pattern: str, config: str) -> list[str]:
    """
    Return the names that the configuration of ssh has for a pattern.
    """
    user, at, pattern = pattern.rpartition('@')
    names = [name for name in configured(config) if fnmatch.fnmatchcase(name, pattern)]
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


def _names_in(path: str, depth: int) -> Iterator[str]:
    """
    Yield the plain names after ``Host`` in a configuration of ssh, and in what it includes.
    """
    try:
        with open(path, encoding='utf-8', errors='replace') as fp:
            lines = fp.read().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.replace('=', ' ', 1).split()
        if len(words) > 1 and words[0].lower() == 'host':
            yield from (word.strip('"') for word in words[1:] if not re.search(r'[*?!]', word))
        elif len(words) > 1 and words[0].lower() == 'include' and depth < 16:
            for word in words[1:]:
                inner = os.path.join(os.path.dirname(path), os.path.expanduser(word.strip('"')))
                for name in sorted(glob.glob(inner)):
                    yield from _names_in(name, depth + 1)
