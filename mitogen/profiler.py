# SPDX-License-Identifier: BSD-3-Clause
"""
Profile a program and all processes it starts with Mitogen.

    python -m mitogen.profiler record <dest_path> <tool> [args ..]
    python -m mitogen.profiler report <path> [sort]
    python -m mitogen.profiler stat <sort> <tool> [args ..]

`record` leaves `<dest_path>-all.pstat`, and one file for each kind of thread.
`report` prints such a file. `stat` does both at once, and keeps no files.
"""

from __future__ import absolute_import
from __future__ import print_function

import glob
import os
import pstats
import shutil
import subprocess
import sys
import tempfile
import time


#: Rows of a table.
ROWS = 100

#: Kinds of threads, in the order in which `stat` reports them.
IDENTITIES = (
    'app.main',
    'mitogen.broker',
    'mitogen.child_main',
    'mitogen.service.pool',
    'Strategy',
    'WorkerProcess',
    'all',
)


def _merge(paths):
    """
    Return the profiles in some files as one, :data:`None` if none can be read.
    """
    merged = None
    for path in paths:
        for attempt in range(5):
            if attempt:
                time.sleep(0.2)
            try:
                stats = pstats.Stats(path)
                break
            except Exception:
                pass
        else:
            print('cannot read %s' % (path,), file=sys.stderr)
            continue
        if merged is None:
            merged = stats
        else:
            merged.add(stats)
    return merged


def _dump(dest_path, identity, paths):
    stats = _merge(sorted(paths))
    if stats is not None:
        stats.dump_stats('%s-%s.pstat' % (dest_path, identity))


def merge_all(tmpdir, dest_path):
    """
    Merge what processes have left in a directory.
    """
    paths = glob.glob(os.path.join(tmpdir, '*-dump.pstats'))
    by_identity = {}
    for path in paths:
        identity = os.path.basename(path).partition('-')[0]
        by_identity.setdefault(identity, []).append(path)
    for identity, some in by_identity.items():
        _dump(dest_path, identity, some)
    _dump(dest_path, 'all', paths)


def record(dest_path, tool, *args):
    """
    Run a program and leave the merged profiles.

    :param str dest_path:
        Beginning of the names of the files.
    :returns:
        Exit status of the program.
    """
    tmpdir = tempfile.mkdtemp(prefix='mitogen.profiler')
    try:
        env = dict(
            os.environ,
            MITOGEN_PROFILING='1',
            MITOGEN_PROFILE_FMT=os.path.join(
                tmpdir, '%(identity)s-%(pid)s.%(now)s-dump.%(ext)s'),
        )
        try:
            status = subprocess.call((tool,) + args, env=env)
        except OSError:
            print('cannot run %s: %s' % (tool, sys.exc_info()[1]),
                  file=sys.stderr)
            return 127
        merge_all(tmpdir, dest_path)
        # As a shell reports the end by a signal.
        return status if status >= 0 else 128 - status
    finally:
        shutil.rmtree(tmpdir, ignore_errors=True)


def report(path, sort='cumulative'):
    """
    Print the top of a table.
    """
    stats = pstats.Stats(path)
    stats.sort_stats(sort)
    stats.print_stats(ROWS)
    return 0


def stat(sort, *args):
    """
    Run a program, and print a table for each kind of thread.
    """
    sorts = pstats.Stats.sort_arg_dict_default
    if sort not in sorts:
        print('unknown sort key %r; there are: %s' % (
            sort, ', '.join(sorted(sorts))), file=sys.stderr)
        return 1

    tmpdir = tempfile.mkdtemp(prefix='mitogen.profiler')
    try:
        dest_path = os.path.join(tmpdir, 'stat')
        status = record(dest_path, *args)
        for identity in IDENTITIES:
            path = '%s-%s.pstat' % (dest_path, identity)
            if os.path.exists(path):
                print('\n== %s ==\n' % (identity,))
                report(path, sort)
        return status
    finally:
        shutil.rmtree(tmpdir, ignore_errors=True)


#: Mode -> function, least and greatest number of arguments.
MODES = {
    'record': (record, 2, None),
    'report': (report, 1, 2),
    'stat': (stat, 2, None),
}


def main(argv):
    """
    Run the program, return its exit status.
    """
    func, least, greatest = MODES.get(''.join(argv[1:2]), (None, 0, None))
    count = len(argv) - 2
    if func is None or count < least or (greatest and count > greatest):
        print(__doc__, file=sys.stderr)
        return 1
    return func(*argv[2:])


if __name__ == '__main__':
    sys.exit(main(sys.argv))
