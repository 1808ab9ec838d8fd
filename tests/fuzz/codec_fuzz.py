"""
Feeds damaged and made-up pickles to the codec's reader, and what it makes of
them to the writer.

    python tests/fuzz/codec_fuzz.py --seconds 60 --sanitize

builds the codec with AddressSanitizer and UndefinedBehaviorSanitizer, and
starts itself once more with the sanitizer's library loaded first. CC chooses
the compiler, which must be gcc (the library's name is asked of it). Without
--sanitize it is a plain run, of use under valgrind:

    PYTHONMALLOC=malloc valgrind python tests/fuzz/codec_fuzz.py --seconds 60

(CPython 3.11's maybe_small_long() looks at a digit too many there; that is not
ours.)

Exit status 0 when all went well. An input that crashes the process, or breaks
a rule, is left in the file that --last names; --replay FILE... runs inputs
again. Worthwhile ones belong into tests/fuzz/corpus/codec/, which test_codec.py
replays.
"""

import argparse
import mmap
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lib'))

import codec_build  # noqa: E402
import fuzz_corpus  # noqa: E402

READ_ERRORS = (pickle.UnpicklingError, codec_build.StreamError, EOFError, RecursionError)

#: A RecursionError is in order for values that contain themselves by way of a Kwargs; the others,
#: for what the fallback cannot write.
WRITE_ERRORS = (RecursionError, pickle.PicklingError, AttributeError)

ROUTER = object()

#: Opcodes with arguments of fixed form.
WORDS = [bytes(bytearray([op])) for op in bytearray(b'(.012NRabde})lotsu]')] + [
    b'\x81', b'\x85', b'\x86', b'\x87', b'\x88', b'\x89', b'\x93', b'\x94', b'\x8f', b'\x90', b'\x91', b'\x92',
    b'cmitogen.core\nBlob\n', b'cmitogen.core\nSecret\n', b'cmitogen.core\nKwargs\n', b'c_codecs\nencode\n',
    b'cmitogen.core\n_unpickle_call_error\n', b'cmitogen.core\n_unpickle_context\n', b'cmitogen.core\n_unpickle_sender\n',
    b'c__builtin__\nbytes\n', b'c__builtin__\nset\n', b'imitogen.core\nBlob\n', b'imitogen.core\nKwargs\n', b'\x80\x02',
    b'X\x01\0\0\0a', b'X\x03\0\0\0\xe2\x82\xac', b'U\x02ab', b'T\x01\0\0\0b', b'C\x01c', b'B\x01\0\0\0d', b'\x8c\x01e',
    b'\x8d\x01\0\0\0\0\0\0\0f', b'\x8e\x01\0\0\0\0\0\0\0g', b'I01\n', b'I12\n', b'L34L\n', b'F1.5\n', b"S'x\\x41'\n",
    b'Vt\\u20ac\n', b'K\x07', b'M\x01\x02', b'J\xff\xff\xff\xff', b'\x8a\x01\x80', b'\x8a\x09' + b'\1' * 9, b'\x8b\x02\0\0\0\1\2',
    b'G\x3f\xf0\0\0\0\0\0\0', b'\x8c\x0cmitogen.core', b'\x8c\x04Blob', b'\x95\x01\0\0\0\0\0\0\0',
]


def buffer(kind, dtype, shape, data=b'U\x02ab'):
    """
    Return what a peer may write in place of a buffer: the global, its arguments, and the call.
    """
    words = b''.join(b'X' + struct.pack('<I', len(word)) + word for word in (kind, dtype))
    return b'cmitogen.core\n_unpickle_buffer\n(' + data + words + shape + b'tR'


#: Buffers, and what is almost one.
BUFFERS = [buffer(kind, dtype, shape) for kind in (b'array', b'memoryview', b'ndarray') for dtype, shape in (
    (b'|i1', b'K\x02\x85'), (b'<u2', b'K\x01\x85'), (b'|b1', b'K\x01K\x02\x86'))]
BUFFERS += [buffer(b'scalar', b'<i2', b')'), buffer(b'ndarray', b'>f2', b')'), buffer(b'array', b'<f8', b'K\x00\x85', b'U\0')]
NO_BUFFERS = [
    buffer(b'array', b'|i1', b'K\x03\x85'), buffer(b'ndarray', b'O', b'K\x02\x85'), buffer(b'memoryview', b'|i1', b']'),
    buffer(b'list', b'|i1', b'K\x02\x85'), buffer(b'ndarray', b'<i2', b'J\xff\xff\xff\xff\x85'),
    b'cmitogen.core\n_unpickle_buffer\n)R']
WORDS += [b'cmitogen.core\n_unpickle_buffer\n', b'X\x05\0\0\0array', b'X\x07\0\0\0ndarray', b'X\x03\0\0\0<i2']


#: Memo indexes of which a table would be large.
CLAIMS = [b'r\xff\xff\xff\x01', b'r\0\0\0\1', b'p16777216\n', b'p 33_554_431\n']


#: Whole values, and what they are: h for hashable, v for not, t for a tuple, and the globals.
ATOMS = [(word, b'h') for word in WORDS if word[:1] in b'XUTCB\x8c\x8d\x8eILFSVKMJ\x8a\x8bG\x88\x89N'] + [
    (b']', b'l'), (b'}', b'd'), (b')', b't'), (b'cmitogen.core\nKwargs\n}\x85R', b'd'),
    (b'cmitogen.core\nBlob\nU\x01x\x85R', b'h'), (b'cmitogen.core\nSecret\nVx\n\x85\x81', b'h'),
    (b'cmitogen.core\n_unpickle_context\nK\x01N\x86R', b'h'), (b'cmitogen.core\n_unpickle_sender\nK\x01K\x02\x86R', b'h'),
    (b'cmitogen.core\nCallError\nVx\n\x85R', b'v'), (b'c_codecs\nencode\nVx\n\x85R', b'h'), (b'c__builtin__\nbytes\n)R', b'h'),
]
ATOMS += [(word, b'v') for word in BUFFERS]


def feasible(rng, stack, memo):
    """
    Return an opcode that the stack of kinds allows, having changed that; m is
    a MARK.
    """
    top = stack[::-1].find(b'm')
    count = len(stack) if top < 0 else top
    r = rng.random()
    if r < 0.3 or count == 0:
        if r < 0.08:
            stack += b'm'
            return b'('
        if r < 0.12 and memo:
            index = rng.choice(sorted(memo))
            stack += memo[index]
            return b'h' + bytes(bytearray([index]))
        word, kind = rng.choice(ATOMS)
        stack += kind
        return word
    if r < 0.4:
        index = rng.randrange(8)
        memo[index] = bytes(stack[-1:])
        return b'q' + bytes(bytearray([index]))
    if r < 0.45:
        stack += stack[-1:]
        return b'2'
    if r < 0.5:
        del stack[-1]
        return b'0'
    if top >= 0 and r < 0.75:
        base = len(stack) - count
        items, below = stack[base:], stack[base - 2:base - 1]
        del stack[base - 1:]
        if below == b'l':
            return b'e'
        if below == b'd' and count % 2 == 0 and b'v' not in items and b'l' not in items and b'd' not in items:
            return b'u'
        stack += b'l'
        if rng.random() < 0.5:
            return b'l'
        stack[-1:] = b't'
        return b't'
    if count >= 2 and stack[-2:-1] == b'l':
        del stack[-1]
        return b'a'
    if count >= 3 and stack[-3:-2] == b'd' and stack[-2:-1] in (b'h', b't'):
        del stack[-2:]
        return b's'
    n = rng.randrange(1, min(3, count) + 1)
    stack[-n:] = b't'
    return (b'\x85', b'\x86', b'\x87')[n - 1]


def generate(rng):
    """
    Return a row of opcodes that make sense one after the other, or mostly.
    """
    parts = [b'\x80\x02']
    stack, memo = bytearray(), {}
    wild = rng.choice((0, 0, 0, 0.01, 0.3))
    for _ in range(rng.choice((5, 10, 20, 50, 200))):
        if rng.random() < wild:
            parts.append(rng.choice(WORDS + NO_BUFFERS + [b'j\7\0\0\0', b'r\x22\0\0\0', b'p5\n', b'g5\n'] + CLAIMS))
        else:
            parts.append(feasible(rng, stack, memo))
    parts.append(b'.' if stack and stack[-1:] != b'm' else b'N.')
    if memo:
        # A second object, out of the memo of the first.
        parts.append(b'\x80\x02h' + bytes(bytearray([min(memo)])) + b'.')
    return b''.join(parts)


def mutate(rng, data, others=()):
    """
    Return the data with some damage.
    """
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        size = len(data)
        at = rng.randrange(size + 1)
        r = rng.randrange(9)
        if r == 0 and size:
            data[rng.randrange(size)] = rng.randrange(256)
        elif r == 1 and size:
            data[rng.randrange(size)] ^= 1 << rng.randrange(8)
        elif r == 2:
            data[at:at + rng.randrange(1, 9)] = b''
        elif r == 3:
            data[at:at] = rng.choice(WORDS)
        elif r == 4:
            piece = data[at:at + rng.randrange(1, 40)]
            to = rng.randrange(size + 1)
            data[to:to] = piece * rng.choice((1, 1, 2, 30))
        elif r == 5:
            del data[at:]
        elif r == 6 and others:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[at:at + rng.randrange(40)] = other[start:start + rng.randrange(200)]
        elif r == 7:
            data[at:at + 4] = struct.pack('<I', rng.choice((0, 1, 0x7fffffff, 0x80000000, 0xffffffff, size, 65536)))
        elif r == 8:
            data[at:at] = generate(rng)
    return bytes(data)


def same(one, other, seen):
    """
    Compare as repr() would, but look at what is shared only once: that may be far more than all it
    is made of.
    """
    if type(one) is not type(other):
        return False
    if not isinstance(one, (list, tuple, dict)):
        return repr(one) == repr(other)
    if (id(one), id(other)) in seen:
        return True
    seen.add((id(one), id(other)))
    if isinstance(one, dict):
        one = [word for item in one.items() for word in item]
        other = [word for item in other.items() for word in item]
    return len(one) == len(other) and all(same(a, b, seen) for a, b in zip(one, other))


def try_landed(codec, data, objs):
    """
    Read the data with its first long byte string in a place of its own. It
    must come to the same, if it comes to an end: of several objects only the
    first is read.
    """
    try:
        landed = codec.unpickle_landed(data, ROUTER)
    except READ_ERRORS:
        assert objs is None
        return
    try:
        assert landed is None or objs is None or same([landed[0]], objs[:1], set())
    except RecursionError:
        pass


def try_one(codec, data, deny=False):
    """
    Read the data; if that works, write the result, and read what was written.
    An exception of any other kind than these passes through.
    """
    try:
        objs = codec.unpickle_all(data, ROUTER, deny)
    except READ_ERRORS:
        if not deny:
            try_landed(codec, data, None)
        return False
    if not deny:
        try_landed(codec, data, objs)
    try:
        written = codec.pickle(*objs)
    except WRITE_ERRORS:
        return True
    try:
        again = codec.unpickle_all(written, ROUTER)
    except codec_build.StreamError as e:
        # Only for the sake of a global that was read as a plain value, or of a byte key that was
        # added to a Kwargs once that was made.
        assert 'cannot unpickle' in str(e) or b'Kwargs' in data and "'utf-8' codec can't decode" in str(e), e
        return True
    if b'Kwargs' in data:
        return True  # byte keys added later come back as text
    try:
        assert same(again, objs, set())
    except RecursionError:
        pass
    return True


def run(codec, args):
    corpus = list(fuzz_corpus.files('codec').values()) + fuzz_corpus.rows('codec')
    corpus += [generate(random.Random(i)) for i in range(20)]

    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(2 ** 32)
    print('seed %d' % (seed,))
    rng = random.Random(seed)
    last_path = args.last or os.path.join(tempfile.gettempdir(), 'codec_fuzz.%d.last' % (os.getpid(),))
    runs = good = 0
    end = time.time() + args.seconds
    with open(last_path, 'w+b') as fp:
        # Survives a crash of the process, and costs no system call each time.
        fp.truncate(1 << 20)
        last = mmap.mmap(fp.fileno(), 1 << 20)
        while time.time() < end:
            for _ in range(100):
                if rng.random() < 0.5:
                    data = generate(rng)
                else:
                    data = mutate(rng, rng.choice(corpus), corpus)
                if len(data) > len(last) - 8:
                    continue
                last[:8 + len(data)] = struct.pack('<Q', len(data)) + data
                try:
                    good += try_one(codec, data, deny=rng.random() < 0.05)
                except BaseException:
                    print('input: %s' % (last_path,))
                    raise
                runs += 1
        last.close()
    os.unlink(last_path)
    print('%d inputs, %d of them readable' % (runs, good))


def replay(codec, paths):
    for path in paths:
        with open(path, 'rb') as fp:
            data = fp.read()
        if path.endswith('.last'):
            data = data[8:8 + struct.unpack('<Q', data[:8])[0]]
        print('%s: %s' % (path, 'readable' if try_one(codec, data) else 'refused'))


def start_sanitized():
    compiler = os.environ.get('CC', 'gcc')
    libs = [subprocess.check_output([compiler, '-print-file-name=' + name]).decode().strip()
            for name in ('libasan.so', 'libubsan.so')]
    env = dict(os.environ, CC=compiler, LD_PRELOAD=' '.join(libs), PYTHONMALLOC='malloc', CODEC_FUZZ_SANITIZED='1')
    # The interpreter itself leaves memory behind when it ends.
    env.setdefault('ASAN_OPTIONS', 'detect_leaks=0:allocator_may_return_null=1')
    env.setdefault('UBSAN_OPTIONS', 'halt_on_error=1:print_stacktrace=1')
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable] + sys.argv, env)


def main():
    parser = argparse.ArgumentParser(description='Fuzz the codec.')
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--seed', type=int)
    parser.add_argument('--sanitize', action='store_true')
    parser.add_argument('--built', help='a codec that codec_build has built, in place of one built now')
    parser.add_argument('--last', help='where to keep the input being tried')
    parser.add_argument('--replay', nargs='+', metavar='FILE')
    args = parser.parse_args()

    flags = []
    if args.sanitize:
        if 'CODEC_FUZZ_SANITIZED' not in os.environ:
            start_sanitized()
        # The compiler need not run under the sanitizer's library.
        os.environ.pop('LD_PRELOAD')
        flags = ['-O1', '-fno-omit-frame-pointer', '-fsanitize=address,undefined']
    folder = tempfile.mkdtemp()
    try:
        codec = codec_build.load(args.built) if args.built else codec_build.build(folder, flags)
        codec.configure(codec_build.CONFIG)
        if args.replay:
            replay(codec, args.replay)
        else:
            run(codec, args)
    finally:
        shutil.rmtree(folder)


if __name__ == '__main__':
    main()
