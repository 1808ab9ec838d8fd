"""
Sizes before work: the cost of an untrusted message is known before anybody reads it. No message,
however small, takes long to read, takes more memory than a multiple of its length, or ends a
process with little stack; and one that cannot be read is a mitogen.core.Error for its reader.
"""

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import mitogen.core
import mitogen.parent
from mitogen.core import Message, Receiver

import places
import targets
import testlib
from hostile_tree import own_tree as tree
from liar import ADD_ROUTE, ALLOCATE_ID, CALL_SERVICE, DEL_ROUTE, FORWARD_LOG, GET_RESOURCE

__all__ = ['tree']

#: Seconds that a sibling may wait for an answer, at most. Each attack took many times as long,
#: before it was refused.
BOUND = testlib.patience() / 4

#: Numbers that differ by this have one hash.
MODULUS = sys.hash_info.modulus


class Caller(object):
    """
    Calls a context without a pause, while an attack goes on beside it.
    """
    def __init__(self, context):
        self.context = context
        self.longest = 0.0
        self.calls = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._main)

    def _main(self):
        while not self._end.is_set():
            began = time.time()
            assert self.context.call(targets.identity, self.calls) == self.calls
            self.longest = max(self.longest, time.time() - began)
            self.calls += 1

    def __enter__(self):
        self._thread.start()
        testlib.wait_for(lambda: self.calls)
        return self

    def __exit__(self, *exc):
        before = self.calls
        if not exc[0]:
            testlib.wait_for(lambda: self.calls > before)
        self._end.set()
        self._thread.join()
        if not exc[0]:
            assert self.longest < BOUND, self.longest


def reads(data):
    """
    Return the first value of a message, as any context reads it that has children.
    """
    return Message(data=data).unpickle()


def bare(value):
    """
    Return a pickle without what begins and ends it.
    """
    return pickle.dumps(value, 2)[2:-1]


def dict_of(keys, one_by_one=False):
    items = [bare(key) + b'N' for key in keys]
    if one_by_one:
        return b'\x80\x02}' + b's'.join(items) + b's.'
    return b'\x80\x02}(' + b''.join(items) + b'u.'


def equal_numbers(count):
    return [i * MODULUS + 7 for i in range(1, count + 1)]


def equal_tuples(count):
    """
    The hashes of -1 and -2 are one.
    """
    return [tuple(-1 - (i >> bit & 1) for bit in range(20)) for i in range(count)]


def arc(count):
    """
    Return numbers of different hashes. Most of them are where a dictionary comes by, one after the
    other, once it has looked at all bits of a hash; the others' ways lead into that. These are
    found by trying, so they are few.
    """
    bits = (3 * count // 2).bit_length()
    mask = (1 << bits) - 1
    numbers, at = [], 1
    taken = set()
    for _ in range(count - count // 16):
        numbers.append(at)
        taken.add(at)
        at = (5 * at + 1) & mask
    rnd = random.Random(1)
    while len(numbers) < count:
        value = rnd.getrandbits(30) | 1 << 31
        perturb, at = value, value & mask
        while perturb and at in taken:
            perturb >>= 5
            at = (5 * at + perturb + 1) & mask
        if not perturb and at in taken:
            numbers.append(value)
    return numbers


# ---- keys

COLLIDING = {
    'numbers': lambda: dict_of(equal_numbers(4000)),
    'one by one': lambda: dict_of(equal_numbers(4000), one_by_one=True),
    'with floats': lambda: dict_of([i * 2.0 ** 61 for i in range(1, 500)] + equal_numbers(4000)),
    'tuples': lambda: dict_of(equal_tuples(4000)),
    'arc': lambda: dict_of(arc(8000)),
    'among text': lambda: dict_of([u'text%d' % i for i in range(3000)] + equal_numbers(4000)),
    'among indices': lambda: dict_of(list(range(3000)) + equal_numbers(4000)),
    'the third': lambda: b'\x80\x02(' + (b'}' + dict_of(equal_numbers(4000))[3:-1]) * 3 + b't.',
    'in Kwargs': lambda: b'\x80\x02cmitogen.core\nKwargs\n' + dict_of(equal_numbers(4000))[2:-1] + b'\x85R.',
    'protocol 0': lambda: pickle.dumps(dict.fromkeys(equal_numbers(4000)), 0),
    'protocol 4': lambda: pickle.dumps(dict.fromkeys(equal_numbers(4000)), 4),
}


@pytest.mark.parametrize('kind', COLLIDING)
def test_keys_that_collide_are_refused(kind):
    data = COLLIDING[kind]()
    with pytest.raises(mitogen.core.Error) as caught:
        reads(data)
    assert 'keys of a dictionary' in str(caught.value)


def test_keys_that_collide_in_two_dictionaries_in_turn_are_refused():
    halves = [bare(number) + b'Ns' for number in equal_numbers(8000)]
    data = b'\x80\x02}q\1}q\2' + b''.join(b'h%c' % (i % 2 + 1) + half + b'0' for i, half in enumerate(halves)) + b'.'
    with pytest.raises(mitogen.core.Error):
        reads(data)


@pytest.mark.parametrize('keys', [
    lambda: range(50000), lambda: range(0, -50000, -1),
    lambda: [i << 12 for i in range(20000)], lambda: [i << 44 for i in range(20000)],
    lambda: [0x7f0000000000 + i * 4096 for i in range(20000)],
    lambda: [i / 8 for i in range(20000)], lambda: [i * 0.1 for i in range(20000)],
    lambda: [(i // 100, i % 100) for i in range(20000)], lambda: [(u'a', (i, b'b')) for i in range(20000)],
    lambda: [u'%d' % i for i in range(20000)], lambda: [b'%d' % i for i in range(20000)],
    lambda: [10 ** 9 * i for i in range(20000)],
])
def test_honest_keys_are_read_however_many(keys):
    value = dict((key, i) for i, key in enumerate(keys()))
    assert reads(Message.pickled(value).data) == value
    assert reads(pickle.dumps([value, value], 2)) == [value, value]


@pytest.mark.parametrize('data', [
    b'\x80\x02})' + b'2\x86' * 60 + b'Ns.',
    b'\x80\x02})' + b'22\x87' * 60 + b'Ns.',
    b'\x80\x02})q\1' + b''.join(b'0(' + b'h%c' % i * 60 + b'tq%c' % (i + 1) for i in range(1, 6)) + b'Ns.',
    b'\x80\x02](}))' + b'2\x86' * 60 + b'\x86NsNe.',
], ids=['pairs', 'triples', 'of sixty', 'inside'])
def test_a_tuple_that_is_in_others_many_times_is_no_key(data):
    with pytest.raises(mitogen.core.Error) as caught:
        reads(data)
    assert 'keys of a dictionary' in str(caught.value)


def test_such_a_tuple_is_a_value_like_any_other():
    value = ()
    for _ in range(60):
        value = value, value
    back = reads(b'\x80\x02)' + b'2\x86' * 60 + b'.')
    for _ in range(60):
        assert back[0] is back[1]
        back = back[0]
    assert back == ()


@pytest.mark.parametrize('data', [
    b'\x80\x02(cmitogen.core\nBlob\nq\1T\0\0\x10\0' + b'x' * (1 << 20) + b'q\2' + b'0h\1h\2\x85R' * 500 + b't.',
    b'\x80\x02(cmitogen.core\nSecret\nq\1X\0\0\x10\0' + b'x' * (1 << 20) + b'q\2' + b'0h\1h\2\x85R' * 500 + b't.',
    b'\x80\x02(c_codecs\nencode\nq\1X\0\0\x10\0' + b'x' * (1 << 20) + b'q\2' + b'0h\1h\2\x85R' * 500 + b't.',
    b'\x80\x02(cmitogen.core\nKwargs\nq\1' + dict_of(u'%d' % i for i in range(50000))[2:-1] + b'q\2' +
    b'0h\1h\2\x85R' * 500 + b't.',
], ids=['Blob', 'Secret', 'bytes', 'Kwargs'])
def test_a_message_does_not_copy_itself_many_times(data):
    with pytest.raises(mitogen.core.Error) as caught:
        reads(data.replace(b'0h\1', b'h\1'))
    assert 'copies itself' in str(caught.value)


def test_objects_that_a_message_has_once_are_read():
    value = [mitogen.core.Blob(b'b' * 1000), mitogen.core.Secret(u's' * 1000), mitogen.core.Kwargs({u'k': 1})] * 100
    value += [mitogen.core.Blob(b'%d' % i * 300) for i in range(100)]
    assert reads(pickle.dumps(value, 2)) == value


# ---- the same from a child

def test_an_answer_whose_keys_collide_stops_nobody(tree):
    data = dict_of(equal_numbers(20000)).decode('latin-1')
    with Caller(tree.sibling):
        tree.liar.start('answer', data=data)
        with pytest.raises(mitogen.core.Error):
            tree.liar.context.call(targets.identity, 1)
        tree.liar.finish()


def test_a_request_whose_keys_collide_stops_nobody(tree):
    data = dict_of(equal_numbers(20000)).decode('latin-1')
    with Caller(tree.sibling):
        tree.liar.tell(*[dict(dst=tree.parent_id, handle=handle, data=data, magic=0x4d4a)
                         for handle in (GET_RESOURCE, ADD_ROUTE, CALL_SERVICE, ALLOCATE_ID)])
        tree.liar.tell(dict(dst=0, handle=FORWARD_LOG, data=data))


@pytest.mark.parametrize('handle', [ADD_ROUTE, DEL_ROUTE, ALLOCATE_ID])
def test_a_message_about_routes_or_ids_has_a_size(tree, handle):
    tree.liar.tell(dict(dst=tree.parent_id, handle=handle, data='1', repeat=10000, reply_to=5))
    (found,) = tree.logs.wait('a message of 10000 bytes, for handle %d' % handle)
    assert found.levelname == 'ERROR'
    if not tree.parent_id:
        assert tree.router.stats()['refusals'] == {'control_bytes': 1}


def test_the_size_of_a_message_about_routes_can_be_set(tree):
    if tree.middle:
        return
    tree.router.limits.control_bytes = 20
    tree.liar.tell(dict(dst=0, handle=ADD_ROUTE, data='x' * 20), dict(dst=0, handle=ADD_ROUTE, data='x' * 21))
    tree.logs.wait('a message of 21 bytes')
    assert not tree.logs.find('a message of 20 bytes')


# ---- depth

DEPTHS = '''
import sys, threading
import mitogen.core, mitogen.parent
from mitogen.core import Message

def nested(depth):
    return [b'\\x80\\x02' + b']' * depth + b'a' * (depth - 1) + b'.', b'\\x80\\x02)' + b'\\x85' * (depth - 1) + b'.',
            b'\\x80\\x02}' + b')' + b'\\x85' * (depth - 2) + b'Ns.',
            b'\\x80\\x02' + b'}' * depth + b'' + b'.' if depth < 2 else
            b'\\x80\\x02' + b'}K\\x01' * (depth - 1) + b'}' + b's' * (depth - 1) + b'.']

def main():
    for depth in (2, 10, 999):
        for data in nested(depth):
            try:
                value = Message(data=data).unpickle()
            except mitogen.core.Error:
                assert depth > 10
                continue
            # All that recurses.
            for use in (hash, repr, Message.pickled, lambda value: value == Message(data=data).unpickle()):
                try:
                    use(value)
                # The interpreter minds its own limit. One class for each clause: with so little stack
                # Python 3.14 cannot compare an exception with several.
                except RecursionError:
                    pass
                except TypeError:
                    pass
    print('well')

threading.stack_size(int(sys.argv[1]))
thread = threading.Thread(target=main)
thread.start()
thread.join()
'''


# Without this package: CPython 3.13 frees what nests deep one in the other.
FREES = '''
import sys, threading
def main():
    value = {}
    for _ in range(999):
        value = {1: value}
threading.stack_size(int(sys.argv[1]))
thread = threading.Thread(target=main)
thread.start()
thread.join()
'''


def run_with_stack(program, size):
    return subprocess.run([sys.executable, '-c', program, str(size * 1024)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=dict(os.environ, MITOGEN_CORE=mitogen.core.CORE))


@pytest.mark.parametrize('size', [64, 96, 128, 192, 256, 512, 8192])
def test_what_nests_deep_is_refused_where_there_is_little_stack(size):
    process = run_with_stack(DEPTHS, size)
    if size == 64 and sys.version_info[:2] == (3, 13) and process.returncode == -signal.SIGSEGV:
        # docs/limits.rst says so.
        assert run_with_stack(FREES, size).returncode == -signal.SIGSEGV
        return
    assert process.stdout.decode().splitlines()[-1:] == ['well'], (process.returncode, process.stdout[-2000:])


# ---- damage

DAMAGED = [b'\x80\x02', b'\x80\x02]', b'\x80\x02U\x10abc', b'\x80', b'\x80\x02.', b'\xff\xff', b'\x80\x02(((', b'K', b'K\x01',
           b'h\0.', b'0.', b'\x80\x02Vabc', b'\x80\x02]K\1s.', b'\x80\x02(u.', b'\x80\x02\x95\1\0\0\0\0\0\0\0.', b'Q.',
           b'\x80\x02]}b.', b'\x80\x02]R.', b'\x80\x04\x8cN\x93.', b'\x80\x02cposix\nsystem\n.', b'cmitogen.core', b'a.']


@pytest.mark.parametrize('data', DAMAGED, ids=repr)
def test_a_damaged_message_is_an_error_of_ours(data):
    with pytest.raises(mitogen.core.Error):
        reads(data)
    for find_class in mitogen.core.find_deny, Message()._find_global:
        with pytest.raises(mitogen.core.Error):
            list(Message(data=data).unpickle_iter(find_class=find_class))


@pytest.mark.parametrize('data', [
    b'\x80\x02]', b'\x80\x02U\x10abc', b'K', b'\xff\xff', b'h\0.', b'\x80\x04\x8e\1\0\0\0\0B\1\0x.'], ids=repr)
def test_it_is_also_what_programs_looked_for_before(data):
    with pytest.raises(mitogen.core.StreamError) as caught:
        reads(data)
    assert isinstance(caught.value, mitogen.core.UnpicklingError)
    assert isinstance(caught.value, EOFError)


def test_a_damaged_answer_is_an_error_of_ours(tree):
    for data in DAMAGED[:8]:
        tree.liar.start('answer', data=data.decode('latin-1'))
        with pytest.raises(mitogen.core.Error):
            tree.liar.context.call(targets.identity, 1)
        tree.liar.finish()


def test_an_answer_that_is_bytes_and_no_pickle_is_an_error_of_ours(tree):
    tree.liar.start('answer', data='raw', magic=Message.ENC_BIN)
    with pytest.raises(mitogen.core.Error) as caught:
        tree.liar.context.call(targets.identity, 1)
    # As for a reader that reads such a message in the wrong way.
    assert isinstance(caught.value, ValueError)
    tree.liar.finish()


# ---- a program's own mistakes

@pytest.mark.parametrize('name,value', [
    ('data', 5), ('data', u'text'), ('data', None), ('handle', []), ('handle', u'1'), ('handle', -1), ('handle', 1 << 40),
    ('dst_id', []), ('src_id', u'x'), ('reply_to', 1 << 32),
], ids=repr)
def test_a_message_of_wrong_fields_is_an_error_of_whoever_sends_it(router, name, value):
    child = router.local()
    with Receiver(router) as receiver:
        for dst_id in 0, child.context_id, 4000000:
            with pytest.raises((TypeError, ValueError, AssertionError, OverflowError, __import__('struct').error)):
                msg = Message(dst_id=dst_id, handle=receiver.handle)
                setattr(msg, name, value)
                router.route(msg)
        receiver.to_sender().send(u'still here')
        assert receiver.get(timeout=testlib.patience()).unpickle() == u'still here'
    assert child.call(targets.identity, 1) == 1


def test_the_broker_reads_no_long_answer_of_a_call_that_was_given_a_sender():
    data = b'\x80\x02cmitogen.core\n_unpickle_call_error\nX\1\0\0\0x\x85R'
    for size, why in (0, u'x'), (300000, None):
        data += b'N0' * (size // 2)
        found = mitogen.parent._why_failed(mitogen.core.Message(data=data + b'.', enc=mitogen.core.Message.ENC_PKL))
        assert found == why
