"""
A child that lies, by a program that speaks the protocol by hand. For each thing it sends, its
parent stays up, its sibling notices nothing, memory stays bounded, and the log names the offender.

Each lie is told twice: by a child of the master, and by a grandchild, whose parent is a child
itself.
"""

import collections
import contextlib
import logging
import os
import pickle
import struct
import sys
import zlib

import pytest

import mitogen.core
import mitogen.master
import mitogen.parent
import mitogen.service
from mitogen.core import HAVE_MODULES, CallError, ChannelError

import codec_fuzz
import hostile_services
import service_targets
import targets
import testlib
import tree_targets
from hostile_tree import family, own_tree, quiet_tree, tree
from liar import (ADD_ROUTE, ALLOCATE_ID, CALL_FUNCTION, CALL_SERVICE, DEL_ROUTE, DETACHING, FORWARD_LOG, FORWARD_MODULE,
                  GET_MODULE, GET_RESOURCE, IS_DEAD, Liar, LOAD_MODULE, LOAD_RESOURCE, SHUTDOWN)

__all__ = ['family', 'own_tree', 'quiet_tree', 'tree']

MEBIBYTE = 1 << 20


def memory(tree, measure):
    """
    Return how much memory the master and the liar's parent have.
    """
    sizes = [measure()]
    if tree.middle:
        sizes.append(tree.middle.call(measure))
    return sizes


@contextlib.contextmanager
def bounded(tree, limit=96 * MEBIBYTE, measure=targets.resident):
    before = memory(tree, measure)
    yield
    after = memory(tree, measure)
    assert all(b - a < limit for a, b in zip(before, after)), (before, after)


def frames_to(frames, handle):
    return [frame for frame in frames if frame[4] == handle]


# ---- identity

def test_another_contexts_name_is_not_believed(tree):
    victim = tree.sibling.context_id
    tree.liar.tell(dict(dst=0, src=victim, handle=FORWARD_LOG, data='root\x0050\0a lie'))
    records = tree.logs.wait('bad auth_id: got %d via' % victim)
    assert 'liar' in records[0].getMessage()
    assert not tree.logs.find('a lie')


def test_an_ancestors_authority_is_not_believed(tree):
    for ancestor in {0, tree.parent_id}:
        tree.liar.tell(dict(dst=tree.sibling.context_id, src=tree.liar.id, auth=ancestor, handle=SHUTDOWN))
        assert 'liar' in tree.logs.wait('bad auth_id: got %d via' % ancestor)[0].getMessage()


def test_another_contexts_source_is_not_believed(tree):
    victim = tree.sibling.context_id
    tree.liar.tell(dict(dst=tree.parent_id, src=victim, auth=tree.liar.id, handle=1000, data='x'))
    assert 'liar' in tree.logs.wait('bad src_id: got %d via' % victim)[0].getMessage()


def test_ids_at_the_edges_are_nobodys(tree):
    for context_id in (2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1):
        tree.liar.tell(dict(dst=tree.parent_id, src=context_id, handle=1000),
                       dict(dst=tree.parent_id, auth=context_id, handle=1000))
        tree.logs.wait('bad auth_id: got %d via' % context_id)


def test_destinations_at_the_edges_are_answered(tree):
    frames = tree.liar.tell(*[
        dict(dst=dst, handle=handle, reply_to=2 ** 32 - 1)
        for dst in (2 ** 31, 2 ** 32 - 1, 0) for handle in (0, 2 ** 31, 2 ** 32 - 1)])
    testlib.wait_for(lambda: len(frames_to(frames, 2 ** 32 - 1)) == 9 or frames.extend(tree.liar.sync()['frames']))
    assert all(frame[5] == IS_DEAD for frame in frames_to(frames, 2 ** 32 - 1))


def test_many_destinations_cost_no_memory(quiet_tree):
    tree = quiet_tree
    with bounded(tree):
        tree.liar.flood(frame=dict(dst=0, handle=5), dst_step=3, count=80000)
        assert tree.liar.sync()['alive']
    if not tree.middle:
        stream = tree.router.stream_by_id(tree.liar.id)
        assert len(stream.protocol.egress_ids) <= 65536


# ---- routes

def test_a_route_that_is_anothers_is_not_taken(tree):
    victim = tree.sibling.context_id
    tree.liar.tell(dict(dst=tree.parent_id, handle=ADD_ROUTE, data='%d:liar' % victim))
    assert 'liar' in tree.logs.wait('cannot add a second route to %d' % victim)[0].getMessage()


def test_a_route_to_an_ancestor_is_not_taken(tree):
    for ancestor in {0, tree.parent_id}:
        tree.liar.tell(dict(dst=tree.parent_id, handle=ADD_ROUTE, data='%d:liar' % ancestor))
        assert 'liar' in tree.logs.wait('may not add a route to %d' % ancestor)[0].getMessage()


def test_a_route_that_is_anothers_is_not_removed(tree):
    victim = tree.sibling.context_id
    tree.liar.tell(dict(dst=tree.parent_id, handle=DEL_ROUTE, data='%d' % victim))
    assert 'liar' in tree.logs.wait('may not remove the route to %d' % victim)[0].getMessage()


def test_a_route_that_is_no_number_is_ignored(tree):
    lies = ['', ':', 'x', '-1', '+5', ' 5', '1_0', '4294967296', '1e3', '5' * 11, '5' * 8000, '\xd9\xa1', '7\0',
            '\0:\0']
    tree.liar.tell(*[dict(dst=tree.parent_id, handle=handle, data=data)
                     for data in lies for handle in (ADD_ROUTE, DEL_ROUTE)])
    testlib.wait_for(lambda: len(tree.logs.find('unusable route message')) == 2 * len(lies))


def test_a_name_in_a_route_is_short_and_printable(tree):
    if tree.middle:
        return
    first = tree.liar.take_ids(0)
    tree.liar.tell(dict(dst=0, handle=ADD_ROUTE, data='%d:a\nb\0c' % first),
                   dict(dst=0, handle=ADD_ROUTE, data='%d:' % (first + 1) + 'x' * 5000))
    assert tree.router.context_by_id(first).name == u'a?b?c'
    assert len(tree.router.context_by_id(first + 1).name) < 300


@pytest.mark.seconds(300)
def test_announcing_routes_without_end_costs_no_memory(quiet_tree):
    tree = quiet_tree
    with bounded(tree):
        tree.liar.flood(frame=dict(dst=tree.parent_id, handle=ADD_ROUTE, data='1%d:x'), start=10 ** 6, count=17000)
        result = tree.liar.sync()
    assert result['alive']
    tree.logs.wait('liar')
    assert [r for r in tree.logs.find('may not add a route to') if 'liar' in r.getMessage()]
    assert len(tree.router._context_by_id) < 17000


def test_adding_and_removing_a_route_leaves_nothing(tree):
    before = len(tree.router._context_by_id)
    tree.liar.tell(*[
        dict(dst=tree.parent_id, handle=handle, data='%d:x' % i)
        for i in range(10 ** 6, 10 ** 6 + 500) for handle in (ADD_ROUTE, DEL_ROUTE)])
    testlib.wait_for(lambda: len(tree.router._context_by_id) <= before + 1)


# ---- frames

def test_an_oversize_frame_ends_the_stream(own_tree):
    tree = own_tree
    with bounded(tree):
        tree.liar.send(frames=[dict(dst=0, handle=5, length=2 ** 32 - 1)])
        assert tree.liar.ended()
    assert 'liar' in tree.logs.wait('4294967295')[0].getMessage()


def test_a_truncated_frame_is_no_frame(tree):
    tree.liar.send(frames=[dict(dst=0, handle=FORWARD_LOG, data='root\x0050\0cut', length=5000)])
    tree.liar.start('raw', data='')
    tree.liar.finish()
    tree.liar.close()
    lost = mitogen.core.Latch()
    mitogen.core.listen(tree.liar.context, 'disconnect', lost.put)
    if tree.router.stream_by_id(tree.liar.id):
        lost.get(timeout=60)
    assert not tree.logs.find('cut', level=50)


def test_rubbish_ends_the_stream(tree):
    tree.liar.raw(data='GET / HTTP/1.1\r\n\r\n', repeat=100)
    assert tree.liar.ended()
    assert 'liar' in tree.logs.wait('Corruption detected')[0].getMessage()


def test_an_announced_payload_that_never_comes_costs_no_memory(own_tree):
    tree = own_tree
    with bounded(tree):
        tree.liar.send(frames=[dict(dst=tree.parent_id, handle=5, length=128 * MEBIBYTE)])
        tree.liar.raw(data='x' * 1000)
        assert tree.sibling.call(targets.identity, 1) == 1


# ---- modules and resources

def test_asking_for_modules_without_end_costs_no_memory(quiet_tree, monkeypatch):
    tree = quiet_tree
    # As many requests as the real bound permits would take seconds, and show no more.
    monkeypatch.setattr(mitogen.parent, 'ABSENT_MAX', 300)
    if tree.middle:
        tree.middle.call(targets.set_absent_max, 300)
    responder = tree.router.responder
    with bounded(tree):
        for start in 0, 450:
            tree.liar.flood(frame=dict(dst=tree.parent_id, handle=GET_MODULE, data='no_such_module_' + 'x' * 200 + '%d'),
                            start=start, count=450, seconds=100)
            assert tree.liar.sync()['alive']
            assert len(responder._cache) < 400
            assert len(responder._finder._found_cache) < 400
            assert not tree.middle or tree.middle.call(targets.count_known_modules) < 400


def test_asking_for_modules_without_end_after_an_announcement_costs_no_memory(router, tmp_path, monkeypatch):
    monkeypatch.setattr(mitogen.parent, 'ABSENT_MAX', 100)
    liar = Liar(router, tmp_path)
    have = zlib.compress(ascii([sys.version, 'os.py']).encode()).decode('latin-1')
    liar.tell(dict(dst=0, handle=HAVE_MODULES, data=have))
    liar.flood(frame=dict(dst=0, handle=GET_MODULE, data='no_such_module_%d'), count=400)
    assert liar.sync()['alive']
    responder = router.responder
    testlib.wait_for(lambda: responder.bad_load_module_count >= 400)
    kept = [responder._parcels._parcels, responder._parcels._needs, responder._cache, responder._finder._found_cache]
    assert [len(i) < 150 for i in kept] == [True] * len(kept)
    liar.close()


def test_asking_for_modules_with_endless_names_costs_no_memory(quiet_tree):
    tree = quiet_tree
    with bounded(tree, 48 * MEBIBYTE):
        for i in range(16):
            tree.liar.tell(dict(dst=tree.parent_id, handle=GET_MODULE, data='%d' % i + 'x', repeat=4 * MEBIBYTE))
    assert 'module with a name of' in tree.logs.wait('module with a name of')[0].getMessage()


def test_what_a_grandchild_asks_the_master_for_is_not_sent_to_its_parent(quiet_tree):
    """
    The parent would keep each answer, and limits the requests of its children.
    """
    tree = quiet_tree
    if not tree.middle:
        return
    names = [u'made_up_%d' % i for i in range(20)]
    before = tree.middle.call(tree_targets.kept_answers)
    frames = tree.liar.tell(
        *[dict(dst=0, handle=GET_MODULE, data=name, reply_to=5) for name in names] +
        [dict(dst=0, handle=GET_RESOURCE, data=pickle.dumps((name, u'x'), 2).decode('latin-1'), reply_to=5)
         for name in names])
    testlib.wait_for(lambda: len(frames_to(frames, 5)) == 40 or frames.extend(tree.liar.sync()['frames']))
    assert all(frame[5] == IS_DEAD for frame in frames_to(frames, 5))
    assert tree.middle.call(tree_targets.kept_answers) == before


def test_a_module_that_is_blocked_is_not_served(router, tmp_path):
    router.responder.blacklist_prefix('targets')
    liar = Liar(router, tmp_path)
    frames = liar.tell(dict(dst=0, handle=GET_MODULE, data='targets'))
    (frame,) = frames_to(frames, LOAD_MODULE)
    assert pickle.loads(frame[7].encode('latin-1')) == ('targets', None, None, None, ())
    liar.close()


def test_a_resource_of_a_blocked_package_is_not_served(router, tmp_path):
    request = pickle.dumps((u'shipped_pkg', u'__init__.py'), 2).decode('latin-1')
    liar = Liar(router, tmp_path)
    assert content_of(liar.tell(dict(dst=0, handle=GET_RESOURCE, data=request)))
    router.responder.blacklist_prefix('shipped_pkg')
    assert content_of(liar.tell(dict(dst=0, handle=GET_RESOURCE, data=request))) is None
    liar.close()


def content_of(frames):
    (frame,) = frames_to(frames, LOAD_RESOURCE)
    data = frame[7].encode('latin-1')
    end = data.index(b'.\x80\x02') + 1
    return pickle.loads(data[end:], encoding='bytes') if data[end + 2:end + 3] == b'N' else data[end:]


def test_a_name_that_is_no_module_is_answered_so(tree):
    names = ['../../etc/passwd', '/etc/passwd', '/etc/passwd.py', '..', '.', '', 'a..b', 'os/../../etc/passwd',
             'passwd\0', 'mitogen.../../etc/passwd', '__main__.x', 'sys', 'os', '\n', 'mitogen.\xc2\x9b\x1b[2J', 'a.' * 400]
    frames = tree.liar.tell(*[dict(dst=tree.parent_id, handle=GET_MODULE, data=name) for name in names])
    testlib.wait_for(lambda: len(frames_to(frames, LOAD_MODULE)) == len(names)
                     or frames.extend(tree.liar.sync()['frames']))
    for frame in frames_to(frames, LOAD_MODULE):
        assert frame[6] > 300 or not any(pickle.loads(frame[7].encode('latin-1'))[1:])
    tree.liar.tell(*[dict(dst=tree.parent_id, handle=GET_MODULE, data=data) for data in ('\xff', 'a.\xed\xa0\x80')])


@pytest.mark.parametrize('count', [40, 400])
def test_a_name_in_very_many_packages_costs_no_time(tree, monkeypatch, count):
    """
    The master and the context in the middle look for each package of a name when a child that has
    announced itself asks.
    """
    counts = collections.Counter()
    denied = mitogen.core.ImportPolicy.denied

    def count_and_ask(self, fullname):
        counts['looks'] += 1
        return denied(self, fullname)

    monkeypatch.setattr(mitogen.core.ImportPolicy, 'denied', count_and_ask)
    name = '.'.join(['pkg'] + ['a'] * count)
    frames = tree.liar.tell(dict(dst=tree.parent_id, handle=GET_MODULE, data=name))
    testlib.wait_for(lambda: frames_to(frames, LOAD_MODULE) or frames.extend(tree.liar.sync()['frames']))
    assert counts['looks'] < 100


def test_a_path_out_of_the_package_is_not_served(router, tmp_path):
    liar = Liar(router, tmp_path)
    for package in ('shipped_pkg', 'mitogen', 'os', ''):
        for resource in ('../../../../../../../../etc/passwd', '/etc/passwd', 'x\0', '', '.', '..', './__init__.py',
                         '__init__.py/', 'a//b', '__init__.py\0/../../../etc/passwd'):
            data = pickle.dumps((package, resource), 2).decode('latin-1')
            frames = liar.tell(dict(dst=0, handle=GET_RESOURCE, data=data))
            # One of many requests waits for its turn.
            testlib.wait_for(lambda: frames_to(frames, LOAD_RESOURCE) or frames.extend(liar.sync()['frames']))
            assert content_of(frames) is None, (package, resource)
    liar.close()


def test_nonsense_about_archives_of_distributions_is_answered_so(router, tmp_path):
    liar = Liar(router, tmp_path)
    sane = 'cp311 cp311 linux_x86_64 glibc 2.36 a70d0d0a'
    # All files of it are modules, which come one by one.
    for package in ('pluggy', 'os', '', '..'):
        for resource in ('\0take ', '\0take x', '\0take ' + sane, '\0take ' + sane.replace('2.36', '9' * 100),
                         '\0take ' + sane[:-1] + '\n', '\0piece ', '\0piece x', '\0piece x -1', '\0piece  0',
                         '\0piece ' + '9' * 90 + ' ' + '9' * 90):
            data = pickle.dumps((package, resource), 2).decode('latin-1')
            frames = liar.tell(dict(dst=0, handle=GET_RESOURCE, data=data))
            testlib.wait_for(lambda: frames_to(frames, LOAD_RESOURCE) or frames.extend(liar.sync()['frames']))
            # Nothing, or a reason why not.
            content = content_of(frames)
            assert content is None or content[7:].startswith(b'no '), (package, resource, content)
    liar.close()


def test_a_request_does_not_make_the_master_import(router, tmp_path):
    liar = Liar(router, tmp_path)
    frames = liar.tell(dict(dst=0, handle=GET_MODULE, data='hostile_bait.inner'))
    last = frames_to(frames, LOAD_MODULE)[-1][7].encode('latin-1')
    assert b'hostile_bait.inner' in last
    liar.tell(dict(dst=0, handle=GET_RESOURCE, data=pickle.dumps((u'hostile_bait.inner', u'x'), 2).decode('latin-1')))
    liar.tell(dict(dst=0, handle=GET_MODULE, data='hostile_bait'))
    assert 'hostile_bait' not in sys.modules
    liar.close()


def pending(tree):
    return tree.router.stream_by_id(tree.liar.id).protocol.pending_bytes()


def test_a_child_that_asks_and_does_not_read_costs_no_memory(quiet_tree, monkeypatch):
    tree = quiet_tree
    monkeypatch.setattr(mitogen.parent.Throttle, 'pending_max', MEBIBYTE)
    with bounded(tree):
        # Answers of some twenty kilobytes, each.
        tree.liar.flood(frame=dict(dst=tree.parent_id, handle=GET_MODULE, data='mitogen.parent'), count=3000,
                        reading=False, seconds=2)
        assert tree.sibling.call(targets.identity, 1) == 1
        testlib.sync(tree.router.broker)
        if not tree.middle:
            tree.logs.wait('does not read the answers', seconds=60)
            assert pending(tree) < 2 * MEBIBYTE


def test_a_child_that_is_refused_and_does_not_read_costs_no_memory(quiet_tree):
    tree = quiet_tree
    tree.router.high_water = 65536
    with bounded(tree):
        tree.liar.flood(frame=dict(dst=tree.parent_id, handle=31337, reply_to=5), count=50000,
                        reading=False, seconds=2)
        assert tree.sibling.call(targets.identity, 1) == 1
        if not tree.middle:
            assert pending(tree) < MEBIBYTE


def fill(tree):
    """
    Have the liar ask for much of its parent, and read nothing of it.
    """
    data = pickle.dumps((u'mitogen', u'core.py'), 2).decode('latin-1')
    tree.liar.flood(frame=dict(dst=tree.parent_id, handle=GET_RESOURCE, data=data), count=200, reading=False, seconds=0.2)
    testlib.wait_for(lambda: 9 * MEBIBYTE < (
        tree.middle.call(tree_targets.unread_bytes) if tree.middle else pending(tree)))


def test_a_sibling_that_refuses_messages_of_a_child_that_does_not_read_is_not_kept_waiting(quiet_tree):
    """
    The router goes on reading from a context that refuses messages, also while the peer it refuses
    does not read.
    """
    tree = quiet_tree
    fill(tree)
    for _ in range(3):
        tree.liar.flood(frame=dict(dst=tree.sibling.context_id, handle=31337, reply_to=5), count=20, reading=False)
        assert tree.sibling.call_async(targets.identity, 1).get(timeout=20).unpickle() == 1


def test_refusals_of_a_sibling_for_a_child_that_does_not_read_cost_no_memory(quiet_tree):
    tree = quiet_tree
    with bounded(tree):
        fill(tree)
        tree.liar.flood(frame=dict(dst=tree.sibling.context_id, handle=31337, reply_to=5), count=50000, reading=False,
                        seconds=2)
        assert tree.sibling.call_async(targets.identity, 1).get(timeout=60).unpickle() == 1


# ---- pickles

def nested(depth):
    return '\x80\x02' + ']' * depth + 'a' * (depth - 1) + '.'


#: Pickles that would like to be large.
BOMBS = {
    'deep': nested(1000000),
    'deep_tuples': '\x80\x02)' + '\x85' * 1000000 + '.',
    'a list in itself': '\x80\x02]q\x00h\x00a.',
    'memo index of 2 ** 25': '\x80\x02Nr\xff\xff\xff\x01.',
    'memo index as text': '\x80\x02Np33554431\n.',
    'memo index behind a text': '\x80\x02X\0\0\x10\0' + 'r' * (1 << 20) + 'r\0\0\x08\0.',
    'memo index that a frame parts': '\x80\x04N\x95\4' + '\0' * 7 + 'r\0\0\0\0\xff\xff\1.',
    'length of 4 GiB': '\x80\x02B\xff\xff\xff\xff.',
    'length of 2 ** 62': '\x80\x04\x8e' + '\0' * 7 + '\x40.',
    'text of 2 GiB': '\x80\x02X\xff\xff\xff\x7f.',
    'long of 2 GiB': '\x80\x02\x8b\xff\xff\xff\x7f.',
    'frame of 2 ** 62': '\x80\x04\x95' + '\0' * 7 + '\x40N.',
    'a class': '\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.',
    'a class of mitogen': '\x80\x02cmitogen.core\nRouter\n)R.',
    'a Blob of 2 ** 40': '\x80\x02cmitogen.core\nBlob\n\x8a\x06\0\0\0\0\0\x01\x85R.',
    'empty': '',
    'truncated': '\x80\x02(((',
    'no opcode': '\x80\x02\xff\xff\xff',
    'secret of the wrong type': '\x80\x02cmitogen.core\nSecret\nK\x01\x85R.',
}


def test_an_answer_that_is_a_bomb_harms_nobody(own_tree):
    tree = own_tree
    for name in sorted(BOMBS):
        with bounded(tree), bounded(tree, 256 * MEBIBYTE, targets.peak):
            tree.liar.start('answer', data=BOMBS[name])
            try:
                result = tree.liar.context.call(targets.identity, 1)
            except Exception:
                result = None
            assert isinstance(result, (list, tuple, mitogen.core.Secret, type(None))), name
            tree.liar.finish()
            del result


def test_a_request_that_is_a_bomb_harms_nobody(own_tree):
    tree = own_tree
    for name in sorted(BOMBS):
        with bounded(tree), bounded(tree, 256 * MEBIBYTE, targets.peak):
            tree.liar.tell(*[dict(dst=tree.parent_id, handle=handle, data=BOMBS[name], magic=0x4d4a, reply_to=5)
                             for handle in (GET_RESOURCE, CALL_FUNCTION, CALL_SERVICE, LOAD_MODULE)])


def test_a_request_with_an_array_imports_nothing(tree, monkeypatch):
    imported, import_module = [], mitogen.core.import_module
    monkeypatch.setattr(mitogen.core, 'import_module', lambda name: imported.append(name) or import_module(name))
    data = codec_fuzz.buffer(b'ndarray', b'|i1', b'K\x02\x85').decode('latin-1')
    # As if somebody imported numpy just now: the broker would wait for that.
    tree.liar.tell(dict(dst=tree.parent_id, handle=GET_RESOURCE, data='\x80\x02%s.' % data, magic=0x4d4a, reply_to=5),
                   dict(dst=tree.parent_id, handle=GET_RESOURCE, data='\x80\x02(%sX\x01\0\0\0at.' % data, magic=0x4d4a))
    assert not set(['numpy', 'mitogen._buffers']) & set(imported)
    testlib.wait_for(lambda: len(tree.logs.find('cannot unpickle')) == 2)


def test_a_request_that_waited_and_is_a_bomb_harms_nobody(tree):
    def call(function, *args):
        return tree.middle.call(function, *args) if tree.middle else function(*args)

    # As if the parent had many bytes for the liar, which does not read them.
    call(targets.set_pending_max, -1)
    try:
        tree.liar.tell(*[dict(dst=tree.parent_id, handle=GET_RESOURCE, data=BOMBS[name], magic=0x4d4a, reply_to=5)
                         for name in ('empty', 'no opcode', 'a class')])
        assert not tree.logs.find('ignoring a bad request')
    finally:
        call(targets.set_pending_max, 64 * MEBIBYTE)
    testlib.wait_for(lambda: len(tree.logs.find('ignoring a bad request')) == 3)
    assert not tree.logs.find('crashed')


def test_an_error_text_of_the_child_is_only_text(tree):
    text = 'boom\n' * 1500
    tree.liar.start('answer', data='\x80\x02cmitogen.core\n_unpickle_call_error\nX%s%s\x85R.' % (
        struct.pack('<L', len(text)).decode('latin-1'), text))
    with pytest.raises(CallError) as caught:
        tree.liar.context.call(targets.identity, 1)
    assert str(caught.value) == text
    tree.liar.finish()


# ---- answers

def start_call(tree):
    """
    Return a receiver that waits for the sibling, whose call lasts until it is told, and its handle.
    """
    receiver = tree.sibling.call_async(targets.sleep, 0.5)
    return receiver, receiver.handle


@pytest.mark.parametrize('reply_to', [0, IS_DEAD])
def test_an_answer_to_a_call_of_another_is_refused(tree, reply_to):
    if tree.middle:
        # The way from the sibling is the liar's, too: see the next test.
        return
    receiver, handle = start_call(tree)
    tree.liar.tell(dict(dst=0, handle=handle, reply_to=reply_to, data='I am dead', magic=0x4d4a))
    assert receiver.get(timeout=60).unpickle() == 0.5
    assert 'unexpected' in tree.logs.wait('reply from unexpected context')[0].getMessage()


def test_an_answer_that_nobody_asked_for_is_dropped(quiet_tree):
    tree = quiet_tree
    tree.liar.flood(frame=dict(dst=0, handle=1000, data='x', magic=0x4d4a), count=1000)
    for handle in range(1000, 1100):
        tree.liar.send(frames=[dict(dst=0, handle=handle, data='N.', magic=0x4d4a)])
    assert tree.liar.sync()['alive']


def test_bad_news_of_another_is_not_believed_below_the_same_parent(router, tmp_path):
    """
    Two children of one intermediary, which calls one of them: the other is not on that way.
    """
    middle = router.local(name=u'middle')
    sibling = router.local(via=middle)
    liar = Liar(router, tmp_path, via=middle)
    result = middle.call_async(targets.call_sleep, sibling, 2.0)
    for _ in range(10):
        liar.tell(*[dict(dst=middle.context_id, handle=handle, reply_to=IS_DEAD, data='I am dead')
                    for handle in range(1000, 1100)])
    assert result.get(timeout=60).unpickle() == 2.0
    liar.close()


def test_bad_news_of_another_behind_the_same_neighbour_is_not_believed(router, tmp_path):
    """
    The master reaches the child that it calls and the liar by one stream.
    """
    middle = router.local(name=u'middle')
    sibling = router.local(via=middle)
    liar = Liar(router, tmp_path, via=middle)
    receiver = sibling.call_async(targets.sleep, 2.0)
    for _ in range(10):
        liar.tell(dict(dst=0, handle=receiver.handle, reply_to=IS_DEAD, data='I am dead'))
    assert receiver.get(timeout=60).unpickle() == 2.0
    liar.close()


def test_bad_news_of_an_ancestor_is_not_believed_of_a_sibling(router, tmp_path):
    """
    A child reaches all others by its parent, and the liar is one of them.
    """
    offers = hostile_services.Offers(router)
    pool = mitogen.service.Pool(router, services=[offers], size=1)
    sibling = router.local()
    liar = Liar(router, tmp_path)
    receiver = sibling.call_async(service_targets.call_service, router.myself(), offers.name(), u'wait')
    testlib.wait_for(lambda: offers.entered)
    for _ in range(10):
        liar.tell(*[dict(dst=sibling.context_id, handle=handle, reply_to=IS_DEAD, data='I am dead')
                    for handle in range(1000, 1100)])
    offers.gate.set()
    assert receiver.get(timeout=60).unpickle() is None
    liar.close()
    pool.stop()


# ---- logs

def test_a_garbled_record_harms_nobody(tree):
    tree.liar.tell(*[dict(dst=0, handle=FORWARD_LOG, data=data) for data in (
        '', '\0', '\0\0', 'name\0\0text', 'name\0x\0text', '\xff\xfe\x0020\0\xff', 'name\x00' + '9' * 5000 + '\0text',
        'name\x00-1\0text', 'name\x0020', '\x0020\0')])


def test_a_logger_with_a_million_dots_harms_nobody(own_tree):
    tree = own_tree
    with bounded(tree):
        tree.liar.tell(dict(dst=0, handle=FORWARD_LOG, data='a.' * 500000 + '\x0030\0text'))
        tree.logs.wait('ignoring a bad log record from')


@pytest.mark.seconds(300)
def test_loggers_without_end_cost_no_memory(quiet_tree):
    tree = quiet_tree
    before = len(logging.Logger.manager.loggerDict)
    with bounded(tree):
        tree.liar.flood(frame=dict(dst=0, handle=FORWARD_LOG, data='made.up%d\x0010\0text'), count=6000)
        assert tree.liar.sync()['alive']
        tree.sibling.call(targets.log, u'mark', 50, u'the end')
        tree.logs.wait('the end', seconds=60)
        del tree.logs.records[:]
    # 5,000 names are made loggers, and each is in the table once for each of its parts that nobody
    # else has.
    parts = 3 if tree.middle else 2
    assert len(logging.Logger.manager.loggerDict) - before < 5000 * parts + 100


def test_a_record_names_the_context_it_is_from(tree):
    tree.liar.tell(dict(dst=0, handle=FORWARD_LOG, data='mitogen\x0050\0I am the master'))
    (record,) = tree.logs.wait('I am the master')
    assert record.name.startswith('mitogen.[') and 'liar' in record.name
    assert record.mitogen_context.context_id == tree.liar.id


# ---- orders to a parent

def test_neither_a_parent_nor_a_sibling_takes_orders(tree):
    call = (None, u'targets', None, u'note', (1,), {})
    data = pickle.dumps(call, 2).decode('latin-1')
    orders = (CALL_FUNCTION, SHUTDOWN, LOAD_MODULE, FORWARD_MODULE, CALL_SERVICE, LOAD_RESOURCE)
    for dst in {0, tree.parent_id, tree.sibling.context_id}:
        frames = tree.liar.tell(*[dict(dst=dst, handle=handle, data=data, reply_to=55, magic=0x4d4a)
                                  for handle in orders])
        testlib.wait_for(lambda: len(frames_to(frames, 55)) == len(orders)
                         or frames.extend(tree.liar.sync()['frames']))
        for frame in frames_to(frames, 55):
            assert frame[5] == IS_DEAD
            assert frame[7] in (mitogen.core.Router.refused_msg, mitogen.core.Router.invalid_handle_msg)
    assert targets.notes() == []
    if tree.middle:
        assert tree.middle.call(targets.notes) == []


def test_detaching_is_for_oneself_only(tree):
    tree.liar.tell(dict(dst=tree.parent_id, src=tree.sibling.context_id, handle=DETACHING, reply_to=5))
    tree.logs.wait('bad auth_id: got %d via' % tree.sibling.context_id)
    frames = tree.liar.tell(dict(dst=tree.parent_id, handle=DETACHING, reply_to=5),
                            dict(dst=tree.parent_id, handle=DETACHING, reply_to=6))
    assert len(frames_to(frames, 5)) == 1 and not frames_to(frames, 6)
    assert 'liar' in tree.logs.wait('bad DETACHING received on')[0].getMessage()
    assert not tree.sibling.call(targets.is_detached)
    if not tree.middle:
        end_detached(tree.router, tree.liar)


def end_detached(router, liar):
    """
    A process that has detached is let be for a while: wait for its end here, unless its connection
    has just done so.
    """
    pid = router.stream_by_id(liar.id).conn.proc.pid
    liar.close()
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        assert not testlib.is_running(pid)


def test_a_child_that_says_it_detaches_and_stays_does_not_keep_its_parent(make_router, tmp_path):
    router = make_router()
    liar = Liar(router, tmp_path)
    liar.tell(dict(dst=0, handle=DETACHING, reply_to=5))
    pid = router.stream_by_id(liar.id).conn.proc.pid
    router.broker.shutdown()
    router.broker.join()
    liar.close()
    os.waitpid(pid, 0)


@pytest.mark.seconds(300)
def test_ids_are_not_handed_out_without_end(quiet_tree):
    tree = quiet_tree
    # As many as the bound lets through would be the same.
    assert tree.router.limits.id_blocks * tree.router.id_allocator.BLOCK_SIZE < 2 ** 21
    tree.router.limits.id_blocks = 100
    # Past its parent a grandchild gets none at all.
    parent = tree.middle.context_id if tree.middle else 0
    tree.liar.flood(frame=dict(dst=parent, handle=ALLOCATE_ID, reply_to=5), count=300)
    assert tree.liar.sync()['alive']
    tree.logs.wait('asks for too many ids', seconds=60)
    if not tree.middle:
        assert 'liar' in tree.logs.find('asks for too many ids')[0].getMessage()
    assert tree.router.id_allocator.allocate() < 2 ** 17
    # Other children are served, unless they are behind the same stream as the child that took all.
    other = tree.router.local()
    assert other.call(targets.allocate_ids, 1)


# ---- who is harmed

def test_a_call_to_a_liar_that_ends_its_stream_fails_cleanly(tree):
    receiver = tree.liar.context.call_async(targets.identity, 1)
    tree.liar.call_handle()
    tree.liar.raw(data='x' * 100)
    with pytest.raises(ChannelError):
        receiver.get(timeout=60).unpickle()


def test_random_frames_harm_nobody(tree):
    import random
    rnd = random.Random(4)
    ids = [0, tree.parent_id, tree.sibling.context_id, tree.liar.id, 5000, 2 ** 31, 2 ** 32 - 1]
    handles = list(range(98, 116)) + [0, 999, 1000, 1001, 1002, 2 ** 32 - 1]
    bodies = ['', '\0', 'x', '1:x', '\x80\x02N.', '\xff' * 40, 'a\x0010\0b', '\x80\x02)'] + list(BOMBS.values())[-6:]
    for _ in range(20):
        tree.liar.send(frames=[dict(
            dst=rnd.choice(ids), src=rnd.choice(ids + [tree.liar.id] * 9), auth=rnd.choice(ids + [tree.liar.id] * 20),
            # Not DETACHING and ADD_ROUTE for itself: that is its right.
            handle=rnd.choice([h for h in handles if h not in (DETACHING,)]), data=rnd.choice(bodies),
            reply_to=rnd.choice([0, 5, IS_DEAD]), magic=rnd.choice([0x4d49, 0x4d4a, 0x4d4b])) for _ in range(100)])
    assert tree.liar.sync()['alive']
