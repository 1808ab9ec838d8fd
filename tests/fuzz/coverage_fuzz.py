"""
Feeds two targets what libFuzzer makes of their coverage: the pickle codec, built by clang with
coverage, ASan and UBSan, and the protocols that read the output of a starting child, which are
Python.

    python tests/fuzz/coverage_fuzz.py codec --seconds 60
    python tests/fuzz/coverage_fuzz.py bootstrap --seconds 60

Half of the changes to an input are libFuzzer's, half those of codec_fuzz.py or bootstrap_fuzz.py,
which know the language, and whose rules hold here too. An input that reaches new code goes to
.fuzz/TARGET and serves the next run. An input that breaks a rule, or the process, goes to
.fuzz/TARGET-crash-*, with exit status not 0. Such a file, as an argument, is run again. --keep
chooses from what was found what the suite replays. Arguments that start with one dash are
libFuzzer's.

Needs atheris, by which libFuzzer knows Python (tools/requirements-fuzz.txt), and clang.
"""

import argparse
import binascii
import hashlib
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zlib

import atheris

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lib'))

import fuzz_corpus  # noqa: E402
import places  # noqa: E402

WORK = os.path.join(places.ROOT, '.fuzz')

#: Of the longest inputs that are tried, in bytes.
MAX_SIZE = 4096

#: Of the longest that are kept in the repository, in bytes.
KEPT_SIZE = 200

SANITIZERS = '-fsanitize=fuzzer-no-link,address,undefined'


def start_sanitized():
    """
    Start this program anew with the sanitizer's and libFuzzer's library loaded first, as the built
    codec wants both, and after it the one by which libFuzzer finds the changes in Python.
    """
    libs = [os.path.join(os.path.dirname(os.path.dirname(atheris.__file__)), 'asan_with_fuzzer.so'),
            importlib.util.find_spec('atheris.custom_mutator').origin]
    env = dict(os.environ, LD_PRELOAD=' '.join(libs), PYTHONMALLOC='malloc', COVERAGE_FUZZ_SANITIZED='1')
    # The interpreter itself leaves memory behind when it ends.
    env.setdefault('ASAN_OPTIONS', 'detect_leaks=0:allocator_may_return_null=1')
    env.setdefault('UBSAN_OPTIONS', 'halt_on_error=1:print_stacktrace=1')
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable] + sys.argv, env)


def prepare_codec():
    import codec_build
    import codec_fuzz

    # The compiler need not run under the sanitizer's library.
    os.environ.pop('LD_PRELOAD')
    os.environ['CC'] = 'clang'
    folder = tempfile.mkdtemp()
    try:
        codec = codec_build.build(folder, ['-O1', '-fno-omit-frame-pointer', SANITIZERS, '-fno-sanitize-recover=undefined'])
    finally:
        shutil.rmtree(folder)
    codec.configure(codec_build.CONFIG)
    corpus = fuzz_corpus.rows('codec') + [codec_fuzz.generate(random.Random(i)) for i in range(20)]

    def try_one(data):
        codec_fuzz.try_one(codec, data, deny=zlib.crc32(data) % 16 == 0)

    def mutate(rng, data):
        return codec_fuzz.mutate(rng, data, corpus)

    return try_one, mutate


def prepare_bootstrap():
    with atheris.instrument_imports(include=['mitogen']):
        import bootstrap_fuzz

    def try_one(data):
        bootstrap_fuzz.try_one(data, random.Random(zlib.crc32(data)))

    return try_one, bootstrap_fuzz.mutate


def command(target):
    """
    Return the path of a program that is this one with a target: libFuzzer starts what it was
    started as.
    """
    path = os.path.join(WORK, 'run-' + target)
    with open(path, 'w') as fp:
        fp.write('#!/bin/sh\nexec env -u COVERAGE_FUZZ_SANITIZED %s %s %s "$@"\n' % (
            sys.executable, os.path.abspath(__file__), target))
    os.chmod(path, 0o755)
    return path


def keep(target, found, kept):
    """
    Write anew which short inputs together reach as much as short ones do.
    """
    with tempfile.TemporaryDirectory() as chosen:
        subprocess.check_call([command(target), '-merge=1', '-max_len=%d' % (KEPT_SIZE,), chosen, found, kept])
        rows = []
        for name in os.listdir(chosen):
            with open(os.path.join(chosen, name), 'rb') as fp:
                rows.append(fp.read())
    with open(fuzz_corpus.rows_path(target), 'w') as fp:
        for row in sorted(rows, key=lambda row: (len(row), row)):
            fp.write(binascii.hexlify(row).decode() + '\n')
    print('%d inputs kept' % (len(rows),))


def main():
    parser = argparse.ArgumentParser(description='Fuzz by coverage.')
    parser.add_argument('target', choices=('codec', 'bootstrap'))
    parser.add_argument('--seconds', type=int, default=60)
    parser.add_argument('--keep', action='store_true', help='choose anew what is in tests/fuzz/corpus/TARGET.rows')
    args, rest = parser.parse_known_args()
    found = os.path.join(WORK, args.target)
    kept = os.path.join(fuzz_corpus.FOLDER, args.target)
    os.makedirs(found, exist_ok=True)
    for row in fuzz_corpus.rows(args.target):
        with open(os.path.join(found, hashlib.sha1(row).hexdigest()), 'wb') as fp:
            fp.write(row)
    if args.keep:
        return keep(args.target, found, kept)

    if args.target == 'codec' and 'COVERAGE_FUZZ_SANITIZED' not in os.environ:
        start_sanitized()
    try_one, mutate = prepare_codec() if args.target == 'codec' else prepare_bootstrap()

    def mutate_one(data, max_size, seed):
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return atheris.Mutate(data, max_size)
        return mutate(rng, data)[:max_size]

    argv = [command(args.target), '-print_final_stats=1', '-artifact_prefix=%s-' % (found,)] + rest
    if all(arg.startswith('-') for arg in rest):
        argv += ['-max_len=%d' % (MAX_SIZE,), '-max_total_time=%d' % (args.seconds,), found, kept]
    atheris.Setup(argv, try_one, custom_mutator=mutate_one)
    atheris.Fuzz()


if __name__ == '__main__':
    main()
