# SPDX-License-Identifier: BSD-3-Clause
"""
Targets: text that names a host, and the way to it.
"""

from __future__ import annotations

import re
from typing import Any, Callable

#: (method of connection, its options)
Hop = tuple[str, dict[str, Any]]

_CHAIN = re.compile(r'(?<!/)/(?=(?:[a-z][a-z0-9]*):)')
_SCHEME = re.compile(r'([a-z][a-z0-9]*):(.*)\Z', re.S)
_ADDRESS = re.compile(
    r'(?:(?P<user>[^@]*)@)?(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<host>[^@:/\[\]]+))(?::(?P<port>\d+))?\Z')


class TargetError(ValueError):
    """
    A text that is no target.
    """


def _ssh(text: str, target: str) -> Hop:
    match = _ADDRESS.match(text[2:].rstrip('/') if text.startswith('//') else text.rstrip('/'))
    if not match:
        raise TargetError('%r: there is no host in it; write ssh://user@host:port' % (target,))
    user, host, port = match['user'], match['six'] or match['host'], match['port']
    if user and ':' in user:
        raise TargetError('a password does not belong in a target, which is shown and logged: use password=')
    options: dict[str, Any] = {'hostname': host}
    if user:
        options['username'] = user
    if port:
        options['port'] = int(port)
    return 'ssh', options


def _local(text: str, target: str) -> Hop:
    return 'local', {'python_path': text} if text else {}


def _account(method: str) -> Callable[[str, str], Hop]:
    def hop(text: str, target: str) -> Hop:
        return method, {'username': text} if text else {}
    return hop


def _container(method: str, has_user: bool = False) -> Callable[[str, str], Hop]:
    def hop(text: str, target: str) -> Hop:
        user, at, name = text.rpartition('@')
        if not name or (at and not has_user):
            raise TargetError('%r: write %s:%sNAME' % (target, method, '[USER@]' if has_user else ''))
        return method, dict({'container': name}, **({'username': user} if user else {}))
    return hop


def _pod(text: str, target: str) -> Hop:
    namespace, slash, pod = text.rpartition('/')
    if not pod or (slash and not namespace):
        raise TargetError('%r: write k8s:NAMESPACE/POD or k8s:POD' % (target,))
    return 'kubectl', dict({'pod': pod}, **({'kubectl_args': ['--namespace', namespace]} if namespace else {}))


def _slurm(text: str, target: str) -> Hop:
    match = re.match(r'(?P<job>[0-9]+(?:[_+][0-9]+)?)?(?:/(?P<node>[A-Za-z0-9][A-Za-z0-9._-]*))?\Z', text)
    if not match:
        raise TargetError('%r: write slurm:JOB, slurm:JOB/NODE or slurm:/NODE, and slurm: for any node' % (target,))
    return 'srun', {name: value for name, value in (('jobid', match['job']), ('node', match['node'])) if value}


def _setns(text: str, target: str) -> Hop:
    kind, _, rest = text.partition('/')
    user, _, name = rest.rpartition('@')
    if not kind or not name:
        raise TargetError('%r: write setns:KIND/[USER@]NAME, for example setns:docker/web' % (target,))
    return 'setns', dict({'kind': kind, 'container': name}, **({'username': user} if user else {}))


#: The word before the colon -> the function that reads the rest.
SCHEMES: dict[str, Callable[[str, str], Hop]] = {
    'local': _local, 'ssh': _ssh, 'sudo': _account('sudo'), 'su': _account('su'), 'doas': _account('doas'),
    'docker': _container('docker', True), 'podman': _container('podman', True), 'buildah': _container('buildah'),
    'jail': _container('jail', True), 'lxc': _container('lxc'), 'lxd': _container('lxd'), 'incus': _container('incus'),
    'k8s': _pod, 'setns': _setns, 'slurm': _slurm,
}


def _hop(text: str, target: str) -> Hop:
    match = _SCHEME.match(text)
    if match and match[1] in SCHEMES:
        return SCHEMES[match[1]](match[2], target)
    if match and not match[2][:1].isdigit():
        raise TargetError('%r: %s: is none of %s' % (target, match[1], ', '.join(sorted(i + ':' for i in SCHEMES))))
    return _ssh(text, target)


def parse(target: str) -> list[Hop]:
    """
    Return the hops of a target, the first one first.

    :raises TargetError: it is no target. The text says how to write one.
    """
    if not isinstance(target, str):
        raise TypeError('a target is text, and not %r' % (target,))
    return [_hop(text, target) for text in _split(target)]


def _split(target: str) -> list[str]:
    parts: list[str] = []
    for part in _CHAIN.split(target):
        scheme = part.partition(':')[0]
        if parts and scheme not in SCHEMES:
            # The name of a pod, or a path, may look like that.
            parts[-1] += '/' + part
        else:
            parts.append(part.rstrip('/') or part)
    return parts
