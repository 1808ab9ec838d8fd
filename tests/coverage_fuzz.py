"""
Feeds two targets what libFuzzer makes of their coverage: the pickle codec, built by clang with coverage, ASan and
UBSan, and the protocols that read the output of a starting child, which are Python.

    python tests/coverage_fuzz.py codec --seconds 60
    python tests/coverage_fuzz.py bootstrap --seconds 60

Half of the changes to an input are libFuzzer's, half those of codec_fuzz.py or bootstrap_fuzz.py, which know the
language, and whose rules hold here too. What is found new goes to build/fuzz/TARGET and serves the next run; what breaks
a rule, or the process, goes to build/fuzz/TARGET-crash-*, with exit status not 0. Such a file, as an argument, is run
again. Arguments that start with one dash are libFuzzer's.

Needs atheris, by which libFuzzer knows Python (tools/requirements-fuzz.txt), and clang.
"""

import argparse
import importlib.util
import os
import random
import re
import shutil
import sys
import tempfile
import zlib

import atheris

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.path.join(os.path.dirname(HERE), 'build', 'fuzz')

#: Of the longest inputs that are tried, in bytes.
MAX_SIZE = 4096

SANITIZERS = '-fsanitize=fuzzer-no-link,address,undefined'


def start_sanitized():
    """
    Start this program anew with the sanitizer's and libFuzzer's library loaded first, as the built codec wants both, and
    after it the one by which libFuzzer finds the changes in Python.
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
    corpus = [codec_fuzz.generate(random.Random(i)) for i in range(20)]

    def try_one(data):
        codec_fuzz.try_one(codec, data, deny=zlib.crc32(data) % 16 == 0)

    def mutate(rng, data):
        return codec_fuzz.mutate(rng, data, corpus)

    return try_one, mutate, codec_build.CORPUS


def prepare_bootstrap():
    with atheris.instrument_imports(include=['mitogen']):
        import bootstrap_fuzz

    def try_one(data):
        bootstrap_fuzz.try_one(data, random.Random(zlib.crc32(data)))

    return try_one, bootstrap_fuzz.mutate, bootstrap_fuzz.CORPUS


def main():
    parser = argparse.ArgumentParser(description='Fuzz by coverage.')
    parser.add_argument('target', choices=('codec', 'bootstrap'))
    parser.add_argument('--seconds', type=int, default=60)
    args, rest = parser.parse_known_args()
    if args.target == 'codec' and 'COVERAGE_FUZZ_SANITIZED' not in os.environ:
        start_sanitized()
    try_one, mutate, kept = prepare_codec() if args.target == 'codec' else prepare_bootstrap()

    def mutate_one(data, max_size, seed):
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return atheris.Mutate(data, max_size)
        return mutate(rng, data)[:max_size]

    found = os.path.join(WORK, args.target)
    os.makedirs(found, exist_ok=True)
    argv = [sys.argv[0], '-print_final_stats=1', '-artifact_prefix=%s-' % (found,)] + rest
    if not any(re.match('[^-]', arg) for arg in rest):
        argv += ['-max_len=%d' % (MAX_SIZE,), '-max_total_time=%d' % (args.seconds,), found, kept]
    atheris.Setup(argv, try_one, custom_mutator=mutate_one)
    atheris.Fuzz()


if __name__ == '__main__':
    main()
