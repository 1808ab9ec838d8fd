#!/usr/bin/env python3
"""
Builds the extension in a way that finds mistakes in C, and runs the tests that use it most, with
that build in this process and in every child:

    address   AddressSanitizer and UndefinedBehaviorSanitizer, Python's own allocator off
    debug     a debug build of CPython (Debian: python3-dbg), which checks reference counts and its own rules
    thread    ThreadSanitizer; an interpreter without it hides its locks, so only reports that are ours alone count
    valgrind  memcheck over a few tests
    dev       the usual build under -X dev

    tools/check_extension.py address debug [-- arguments of pytest]

Run from a checkout where `tools/setup test` has run. A build is kept in .venv/extension/, and made
anew when it is asked for.
"""

import glob
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, '.venv', 'extension')

#: The tests that use the extension most; the rest of the suite is Python.
FILES = '''
    test_aio test_broker test_call_chain test_call_function test_channel test_cores_alike test_exceptions_anywhere
    test_executor test_exit_anywhere
    test_descriptors test_flow_control test_fork test_fork_anywhere test_forward_without_gil test_hostile_stream
    test_interrupts_anywhere test_invokers test_large_bytes test_latch test_leaks test_lifecycle test_message
    test_native_high_water test_os_fork test_poller test_pool test_receiver test_router test_routing test_says_why
    test_select test_serialization test_service test_signals test_streams test_unix test_via
'''.split()

#: Valgrind takes fifty times as long.
FEW_FILES = 'test_latch test_message test_receiver test_serialization test_channel'.split()

#: Reports about one of these are about the interpreter, which ThreadSanitizer does not know.
NOT_OURS = '''
race:^Py
race:^_Py
race:python
called_from_lib:libpython
'''


#: Not "-m pytest": that puts the checkout on the path. Its package has no build, so that no child
#: would use the extension.
START = 'import sys; sys.path[:] = [p for p in sys.path if p]; import pytest; sys.exit(pytest.main(sys.argv[1:]))'


class Unavailable(Exception):
    """
    The machine lacks something; the text says what.
    """


def say(text):
    sys.stderr.write('check_extension: %s\n' % (text,))


def run(command, env=None):
    say(' '.join(command))
    return subprocess.call(command, cwd=ROOT, env=env)


def library(name):
    """
    Return the path of a library of the compiler's.
    """
    path = subprocess.check_output(['cc', '-print-file-name=' + name], universal_newlines=True).strip()
    if not os.path.isabs(path):
        raise Unavailable('the compiler has no ' + name)
    return os.path.realpath(path)


def build(variant, python, flags):
    """
    Build the package into a folder of its own and return that.
    """
    folder = os.path.join(BUILD, variant)
    shutil.rmtree(folder, ignore_errors=True)
    # With the compiler, so that what setup.py tries has them, too.
    env = dict(os.environ, MITOGEN_REQUIRE_NATIVE='1', CC=' '.join(['cc'] + flags))
    env.pop('MITOGEN_PURE', None)
    # Elsewhere than in the checkout, where an object of another variant may lie.
    source = os.path.join(BUILD, 'source')
    shutil.rmtree(source, ignore_errors=True)
    os.makedirs(source)
    for name in 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.rst', 'LICENSE', 'LICENSE.libev', 'mitogen', '_mitogen_core', \
            'ansible_collections', 'ansible_mitogen':
        path = os.path.join(ROOT, name)
        if os.path.isdir(path):
            shutil.copytree(path, os.path.join(source, name), ignore=shutil.ignore_patterns('build', '__pycache__'))
        else:
            shutil.copy(path, source)
    try:
        subprocess.check_call(
            [python, '-m', 'pip', 'install', '--disable-pip-version-check', '-q', '--no-deps', '--no-build-isolation',
             '--target', folder, source], env=env)
    finally:
        shutil.rmtree(source)
    # Each child would compile them anew, and a sanitizer makes that slow.
    subprocess.check_call([python, '-m', 'compileall', '-q', folder])
    return folder


def test_files(names):
    """
    Return the paths of test files, of whichever subject they are.
    """
    found = []
    for name in names:
        [path] = glob.glob(os.path.join(ROOT, 'tests', '*', name + '.py'))
        found.append(os.path.relpath(path, ROOT))
    return found


def pytest(python, folder, files, options, env, args):
    """
    Run test files over the native core that is in a folder.
    """
    paths = test_files(files)
    if any(os.path.exists(arg.partition('::')[0]) for arg in args):
        paths = []
    env = dict(os.environ, MITOGEN_CORE='native', MITOGEN_TEST_SECONDS='900', PYTHONFAULTHANDLER='1', **env)
    if folder:
        env['PYTHONPATH'] = folder
    return run([python] + options + ['-c', START, '-q', '--core', 'native', '-p', 'no:cacheprovider'] + paths + args, env)


def reports(pattern, ours=''):
    """
    Show what sanitizers have written, in whichever process; return how many files of it there are.

    :param ours: regular expression; only paragraphs that have such a text count.
    """
    count = 0
    for path in glob.glob(pattern + '*'):
        with open(path, errors='replace') as fp:
            paragraphs = re.split(r'\n(?:==\d+== *)?\n', fp.read())
        text = '\n\n'.join(each for each in paragraphs if each.strip() and re.search(ours, each))
        if text:
            count += 1
            print('---- %s\n%s' % (path, text))
    return count


def log_place(variant):
    folder = os.path.join(BUILD, variant + '-reports')
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    # Children may run as other users.
    os.chmod(folder, 0o777)
    return os.path.join(folder, 'report')


def check_address(args):
    preload = ' '.join(library(name) for name in ('libasan.so', 'libubsan.so'))
    flags = ['-O1', '-g', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-fno-omit-frame-pointer']
    folder = build('address', sys.executable, flags)
    log = log_place('address')
    # A sanitizer keeps books on each allocation, so that the process grows.
    files = [name for name in FILES if name != 'test_leaks']
    status = pytest(sys.executable, folder, files, [], {
        'LD_PRELOAD': preload, 'PYTHONMALLOC': 'malloc',
        # The interpreter leaves much behind, on purpose. A loop that is given up in the middle of a
        # fork is left, too. Freed memory is kept for a while, but some tests look at how a process
        # grows.
        'ASAN_OPTIONS': 'detect_leaks=0:quarantine_size_mb=16:handle_segv=0:abort_on_error=0:log_path=%s' % (log,),
        'UBSAN_OPTIONS': 'print_stacktrace=1:log_path=%s' % (log,),
    }, args)
    return status or reports(log)


def check_thread(args):
    flags = ['-O1', '-g', '-fsanitize=thread', '-fno-omit-frame-pointer']
    folder = build('thread', sys.executable, flags)
    log = log_place('thread')
    suppressions = log + '.suppressions'
    with open(suppressions, 'w') as fp:
        fp.write(NOT_OURS)
    files = 'test_latch test_receiver test_select test_call_function test_flow_control test_router'.split()
    status = pytest(sys.executable, folder, files, [], {
        'LD_PRELOAD': library('libtsan.so'), 'PYTHONMALLOC': 'malloc',
        'TSAN_OPTIONS': 'exitcode=0:die_after_fork=0:ignore_noninstrumented_modules=1:report_signal_unsafe=0:suppressions=%s:log_path=%s' % (
            suppressions, log),
    }, args)
    os.unlink(suppressions)
    return status or reports(log)


def check_debug(args):
    python = shutil.which('python3-dbg')
    if not python:
        raise Unavailable('there is no python3-dbg (Debian: apt install python3-dbg)')
    venv = os.path.join(BUILD, 'debug-venv')
    own = os.path.join(venv, 'bin', 'python')
    if not os.path.exists(own):
        subprocess.check_call([python, '-m', 'venv', venv])
    # Only what these files need: much of the rest would have to be compiled for that Python.
    subprocess.check_call([own, '-m', 'pip', 'install', '--disable-pip-version-check', '-q', 'setuptools', 'wheel',
                           'pytest>=7', 'hypothesis'])
    folder = build('debug', own, ['-O1', '-g', '-UNDEBUG'])
    # Some tests start programs with an environment of their own.
    place = subprocess.check_output([own, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'], text=True)
    with open(os.path.join(place.strip(), 'mitogen.pth'), 'w') as fp:
        fp.write(folder + '\n')
    return pytest(own, folder, FILES, [], {}, args)


def check_valgrind(args):
    if not shutil.which('valgrind'):
        raise Unavailable('there is no valgrind (Debian: apt install valgrind)')
    folder = build('valgrind', sys.executable, ['-O1', '-g'])
    log = log_place('valgrind')
    paths = test_files(FEW_FILES)
    env = dict(os.environ, MITOGEN_CORE='native', MITOGEN_TEST_SECONDS='3600', PYTHONPATH=folder, PYTHONMALLOC='malloc',
               MITOGEN_SPIN='0')
    # It has much to say of the interpreter, such as of numbers that are made of random bytes.
    return run(['valgrind', '-q', '--log-file=%s.%%p' % (log,), '--num-callers=30',
                sys.executable, '-m', 'pytest', '-q', '--core', 'native', '-p', 'no:cacheprovider'] + (args or paths),
               env) or reports(log, r'\bmg_|_mitogen_core')


def check_dev(args):
    return pytest(sys.executable, None, FILES, ['-X', 'dev'], {'PYTHONDEVMODE': '1'}, args)


def main(argv):
    names, _, args = argv, None, []
    if '--' in argv:
        names, args = argv[:argv.index('--')], argv[argv.index('--') + 1:]
    failed = []
    for name in names:
        check = globals().get('check_' + name)
        if not check:
            sys.exit('no such check: %s' % (name,))
        try:
            if check(args):
                failed.append(name)
        except Unavailable as error:
            say('not run, %s: %s' % (name, error))
    if failed:
        sys.exit('failed: %s' % (', '.join(failed),))
    say('fine: %s' % (', '.join(names),))


if __name__ == '__main__':
    main(sys.argv[1:])
