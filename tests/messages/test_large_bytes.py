"""
Large byte strings, which may land in an object that was made for them beforehand: of the same
length again and again, of lengths in turn, kept for long, in several places at once.
"""

import hashlib
import os
import pickle
import threading

import pytest

import mitogen.core
from mitogen.core import Blob, Message

import targets
import testlib

#: About where a place is made for what comes next, where it is not any more, and what is round.
LENGTHS = [96 * 1024 - 1, 96 * 1024, 96 * 1024 + 1, 131072, 1 << 20, 4 << 20, (4 << 20) + 1]


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize('length', LENGTHS)
def test_each_of_many_results_is_its_own(shared_child, length):
    context = shared_child
    sent = [os.urandom(length) for _ in range(6)]
    got = [context.call(targets.identity, data) for data in sent]
    assert [type(data) for data in got] == [bytes] * 6
    # After all have come, so one that was written over is seen.
    assert [digest(data) for data in got] == [digest(data) for data in sent]


def test_results_of_lengths_in_turn(router):
    context = router.local()
    for i in range(30):
        length = LENGTHS[i * i % 5] + (i % 2)
        data = os.urandom(length)
        assert context.call(targets.identity, data, u'text', i) == (data, u'text', i)
        assert context.call(targets.add, i, 1) == i + 1


def test_what_is_kept_stays_as_it_is(router):
    context = router.local()
    kept = context.call(os.urandom, 200000)
    was = digest(kept)
    for _ in range(10):
        assert len(context.call(os.urandom, 200000)) == 200000
        assert digest(kept) == was


def test_results_that_come_together_are_all_there(router):
    context = router.local()
    sent = [os.urandom(150000) for _ in range(20)]
    receivers = [context.call_async(targets.identity, data) for data in sent]
    messages = [receiver.get() for receiver in receivers]
    assert [msg.unpickle() for msg in messages] == sent
    # A message may be read again, and asked for its bytes.
    for msg, data in zip(messages, sent):
        assert msg.unpickle() == data
        assert data in msg.data
        assert Message(data=msg.data, enc=msg.enc).unpickle() == data


def test_several_threads_and_children(router):
    failed = []

    def work(context, seed):
        try:
            for i in range(15):
                data = bytes(bytearray([seed])) * (150000 + i % 3)
                if context.call(targets.identity, data) != data:
                    failed.append((seed, i))
        except Exception as e:
            failed.append(e)

    contexts = [router.local() for _ in range(3)]
    threads = [threading.Thread(target=work, args=(contexts[i % 3], i)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize('wrap', [
    lambda data: data, lambda data: Blob(data), lambda data: [data, data[:100000], u'x'], lambda data: {u'key': data},
    lambda data: data.hex(), lambda data: (data[:1000], data),
], ids=['bytes', 'blob', 'list', 'dict', 'text', 'after short bytes'])
def test_whatever_they_are_part_of(shared_child, wrap):
    context = shared_child
    for _ in range(5):
        value = wrap(os.urandom(131072))
        back = context.call(targets.identity, value)
        assert back == value
        assert type(back) is type(value)


def test_through_contexts_in_between(router):
    context = router.local(via=router.local(via=router.local()))
    for _ in range(6):
        data = os.urandom(300000)
        assert context.call(targets.identity, data) == data


if mitogen.core.CORE == 'native':
    @pytest.mark.parametrize('length, times', [(1 << 20, 5), (34 << 20, 1)],
                             ids=['of the heap', 'with a mapping of their own'])
    @pytest.mark.seconds(600)
    def test_they_do_land(router, length, times):
        context = router.local()
        before = router._loop.stats()['landed']

        def landed():
            # The first two only say that there may be more. A place is dropped after a second
            # without traffic, so all calls are sent before the first result is read.
            for call in [context.call_async(targets.return_bytes, length) for _ in range(4)]:
                assert call.get().unpickle() == b'\xff' * length
            return router._loop.stats()['landed'] - before >= times

        testlib.wait_for(landed, seconds=300)

    def wait_for_landing(router, fetch):
        """Fetch until one has landed, and return it."""
        got = []

        def landed():
            before = router._loop.stats()['landed']
            got[:] = [fetch()]
            return router._loop.stats()['landed'] > before

        testlib.wait_for(landed)
        return got[0]

    def test_what_nobody_has_any_more_is_free_at_once(router):
        import tracemalloc
        context = router.local()

        def fetch():
            msg = context.call_async(os.urandom, 2 << 20).get()
            return msg, msg.unpickle()

        tracemalloc.start()
        try:
            kept = [wait_for_landing(router, fetch) for _ in range(4)]
            with_all = tracemalloc.get_traced_memory()[0]
            del kept[:]
            # One place is kept, for the next large message.
            assert with_all - tracemalloc.get_traced_memory()[0] >= 4 * (2 << 20)
        finally:
            tracemalloc.stop()

    def test_a_payload_is_whatever_its_message_is_told_that_it_is(router):
        context = router.local()
        receiver = mitogen.core.Receiver(router)
        pickled = Message.pickled(u'x' * 1000000).data

        def told_otherwise():
            context.call(targets.say_raw, receiver.to_sender(), pickled)
            assert receiver.get().data == pickled
            before = router._loop.stats()['landed']
            context.call(targets.say_raw, receiver.to_sender(), pickled)
            msg = receiver.get()
            msg.enc = Message.ENC_PKL
            assert msg.unpickle() == u'x' * 1000000
            return router._loop.stats()['landed'] > before

        testlib.wait_for(told_otherwise)


@pytest.mark.parametrize('kind', [bytes, Blob])
@pytest.mark.parametrize('content', [b'\0\xff', b'ab'])
def test_large_bytes_of_a_pickler_of_python_3_are_read(kind, content):
    """They are text before they are bytes, and bytes before they are a Blob."""
    value = kind(content * 300000)
    assert Message(data=pickle.dumps(value, 2), enc=Message.ENC_PKL).unpickle() == value
