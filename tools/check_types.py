"""
Check by pyright that typed programs are clean, and that each marked line of a wrong one is refused.

    python tools/check_types.py PROGRAM...

The words "# wrong" at the end of a line mark it.
"""

import json
import os
import subprocess
import sys


def marked(path):
    """
    Return the numbers of the lines that are to be refused.
    """
    with open(path, encoding='utf-8') as fp:
        return {number for number, line in enumerate(fp, 1) if line.endswith('# wrong\n')}


def refused(paths):
    """
    Return (path, number of a line, from 1) -> what pyright says about it.
    """
    done = subprocess.run(
        [sys.executable, '-m', 'pyright', '--outputjson', '--pythonpath', sys.executable] + paths,
        stdout=subprocess.PIPE, text=True)
    try:
        found = json.loads(done.stdout)['generalDiagnostics']
    except (ValueError, KeyError):
        sys.exit('pyright: ' + done.stdout)
    return {(os.path.realpath(it['file']), it['range']['start']['line'] + 1): it['message'] for it in found
            if it['severity'] == 'error'}


def main(paths):
    paths = [os.path.realpath(path) for path in paths]
    said = refused(paths)
    expected = {(path, number) for path in paths for number in marked(path)}
    for path, number in sorted(set(said) ^ expected):
        print('%s:%d: %s' % (os.path.relpath(path), number, said.get((path, number), 'pyright takes this, which is wrong')))
    if set(said) != expected:
        sys.exit(1)
    print('types: all well, and %d wrong lines are refused' % len(expected))


if __name__ == '__main__':
    main(sys.argv[1:])
