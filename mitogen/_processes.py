# SPDX-License-Identifier: BSD-3-Clause
"""
The processes of a machine and what they use, read from /proc. This module is fetched by a host that
``mitogen top`` is for. It needs Linux and Python 3.6.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import os
import time

#: Characters of a command line that are told.
COMMAND_MAX = 200


def _read(path):
    with open(path, 'rb') as fp:
        return fp.read()


def _numbers(text):
    """
    Return the numbers of a file of lines such as ``MemTotal:  123 kB``, in bytes.
    """
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(b':')
        words = rest.split()
        if words and words[0].isdigit():
            found[name.decode('ascii', 'replace')] = int(words[0]) * (1024 if words[-1] == b'kB' else 1)
    return found


class _Sample(object):
    """
    The figures of /proc at one time.

    :ivar ticks: (pid, start time) -> (ticks of processor time, pid, state, bytes of memory, name).
    """
    def __init__(self):
        self.at = time.monotonic()
        self.ticks = {}
        page = os.sysconf('SC_PAGE_SIZE')
        for name in os.listdir('/proc'):
            if not name.isdigit():
                continue
            try:
                head, _, tail = _read('/proc/%s/stat' % (name,)).rpartition(b')')
            except OSError:
                # It ended just now, or is hidden.
                continue
            # From the state on: proc(5) counts it as the third.
            words = tail.split()
            used = int(words[11]) + int(words[12])
            self.ticks[int(name), int(words[19])] = (
                used, int(name), words[0].decode('ascii', 'replace'), int(words[21]) * page, head.partition(b'(')[2])


def _command(pid, name):
    """
    Return the command line of a process, or its name in brackets as `ps` has it.
    """
    try:
        words = _read('/proc/%d/cmdline' % (pid,)).rstrip(b'\0').replace(b'\0', b' ')
    except OSError:
        words = b''
    return (words or b'[' + name + b']')[:COMMAND_MAX].decode('utf-8', 'replace')


def _user(pid, known):
    try:
        uid = os.stat('/proc/%d' % (pid,)).st_uid
    except OSError:
        return '?'
    if uid not in known:
        import pwd
        try:
            known[uid] = pwd.getpwuid(uid).pw_name
        except KeyError:
            known[uid] = str(uid)
    return known[uid]


def _machine(sample):
    memory = _numbers(_read('/proc/meminfo'))
    return {
        'load': list(os.getloadavg()), 'cpus': os.cpu_count() or 1, 'processes': len(sample.ticks),
        'memory': memory.get('MemTotal', 0), 'available': memory.get('MemAvailable', memory.get('MemFree', 0)),
    }


def _told(before, sample, count, key):
    """
    Return what is told of a sample: the machine, and the processes that use most since the one
    before it.
    """
    seconds = max(sample.at - before.at, 0.001) * os.sysconf('SC_CLK_TCK')
    machine = _machine(sample)
    rows = []
    for key_of, (used, pid, state, memory, name) in sample.ticks.items():
        share = (used - before.ticks[key_of][0]) / seconds if key_of in before.ticks else 0.0
        rows.append((share, memory, pid, state, name))
    rows.sort(key=lambda row: (row[1], row[0]) if key == 'memory' else row[:2], reverse=True)
    users = {}
    machine['top'] = [
        {'pid': pid, 'user': _user(pid, users), 'state': state, 'cpu': round(100 * share, 1), 'memory': memory,
         'command': _command(pid, name)} for share, memory, pid, state, name in rows[:count]]
    return machine


def samples(interval, count, key):
    """
    Yield what the machine does: a dict, the first one after an interval.

    :param float interval: seconds between two.
    :param int count: processes that are told.
    :param key: "cpu" or "memory": which ones are.
    """
    if not os.path.exists('/proc/self/stat'):
        raise OSError('there is no /proc as Linux has it')
    before = _Sample()
    while True:
        time.sleep(interval)
        sample = _Sample()
        yield _told(before, sample, count, key)
        before = sample
