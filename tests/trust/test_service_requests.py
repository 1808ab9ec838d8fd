"""
A call of a service by a context without authority: its names are read first, then the policy is
asked, and then its arguments are read.
"""

import pickle

import pytest

import mitogen.core
import mitogen.service
from mitogen.core import CallError, Kwargs, Message

import hostile_services
import service_targets
import testlib
from liar import CALL_SERVICE, Liar

MEBIBYTE = 1 << 20
KINDS = ['Offers', 'InTurn', 'Once']
ALL = KINDS + ['Asked', 'Judged', 'JudgedInTurn']


def names(service, method):
    return b'\x80\x02' + b''.join(b'X' + bytes([len(text), 0, 0, 0]) + text.encode() for text in (service, method))


def call(service, method, rest=b'}\x87.', reply_to=5):
    """
    Return the frame of a call. Its arguments are pickled as `rest` says.
    """
    return dict(dst=0, handle=CALL_SERVICE, reply_to=reply_to, magic=0x4d4a,
                data=(names(service, method) + rest).decode('latin-1'))


class Cast(object):
    """
    A liar, and a pool with the services that it calls.
    """
    def __init__(self, router, tmp_path):
        self.router = router
        self.services = dict((kind, getattr(hostile_services, kind)(router)) for kind in ALL)
        self.pool = mitogen.service.Pool(router, services=self.services.values(), size=2)
        self.liar = Liar(router, tmp_path)

    def name(self, kind):
        return self.services[kind].name()

    def answers(self, frames, count=None):
        """
        Send calls, and return their answers, as text that is not unpickled.
        """
        self.liar.send(frames=frames)
        got = []
        testlib.wait_for(lambda: got.extend(
            frame[7] for frame in self.liar.sync()['frames'] if frame[4] == 5) or len(got) >= (count or len(frames)))
        return got

    def answer(self, *args):
        return self.answers([call(*args)])[0]


@pytest.fixture
def cast(router, tmp_path):
    cast = Cast(router, tmp_path)
    yield cast
    for service in cast.services.values():
        service.gate.set()
    cast.liar.close()
    cast.pool.stop()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [10, MEBIBYTE])
def test_the_arguments_of_a_call_that_is_refused_are_not_read(cast, kind, size):
    """
    They cannot be read at all, and a caller that may not call is told that it may not.
    """
    damage = b'\xff' * size
    assert 'may not use' in cast.answer(cast.name(kind), u'order', damage)
    assert 'no method' in cast.answer(cast.name(kind), u'no_such_method', damage)
    assert 'not active' in cast.answer(u'os.path', u'order', damage)
    permitted = cast.answer(cast.name(kind), u'small', damage)
    assert 'may not use' not in permitted and 'Error' in permitted
    assert 'small' in cast.answer(cast.name(kind), u'small')


def test_long_calls_that_nobody_may_make_do_not_wait(cast):
    """
    All threads of the pool are busy.
    """
    offers = cast.services['Offers']
    for _ in range(cast.pool.size):
        cast.liar.send(frames=[call(offers.name(), u'wait')])
    testlib.wait_for(lambda: len(offers.entered) == cast.pool.size)
    refused = cast.answers([call(offers.name(), u'order', b'}' + b'0}' * MEBIBYTE + b'\x87.')] * 20)
    assert all('may not use' in answer for answer in refused)


@pytest.mark.parametrize('kind', ['Judged', 'JudgedInTurn'])
def test_a_policy_of_a_program_is_asked_once_and_before_the_arguments_are_read(cast, kind):
    service = cast.services[kind]
    assert 'may not use' in cast.answer(service.name(), u'perhaps', b'\xff')
    assert service.judge.asked == 1
    service.judge.agrees = True
    assert 'yes' in cast.answer(service.name(), u'perhaps')
    assert service.judge.asked == 2
    assert 'Error' in cast.answer(service.name(), u'perhaps', b'\xff' * MEBIBYTE)
    assert service.judge.asked == 3


def test_a_policy_is_asked_when_calls_that_came_before_were_obeyed(cast):
    """
    The service obeys one call at a time, and the first one has the policy agree about the second
    one.
    """
    service = cast.services['JudgedInTurn']
    one, two = cast.answers([call(service.name(), u'open_up'), call(service.name(), u'perhaps')])
    assert 'opened' in one and 'yes' in two


def test_an_invoker_of_a_program_is_given_the_arguments(cast):
    service = cast.services['Asked']
    assert 'small' in cast.answer(service.name(), u'small')
    assert 'may not use' in cast.answer(service.name(), u'order', b'}X\x01\x00\x00\x00aI1\ns\x87.')
    assert service.seen == [(u'small', {}), (u'order', {u'a': 1})]


def test_a_long_call_that_does_not_begin_with_its_names_is_refused(cast):
    """
    A short one is read at once.
    """
    name = cast.name('Offers').encode()
    head = b'\x80\x02}0X' + bytes([len(name), 0, 0, 0]) + name + b'X\x05\x00\x00\x00small'
    for rest, text in (b'}\x87.', 'small'), (b'}0' * 5000 + b'}\x87.', 'this is not a service call'):
        data = (head + rest).decode('latin-1')
        assert text in cast.answers([dict(call(u'', u''), data=data)])[0]


def test_a_call_that_begins_as_another_one_is_refused(cast):
    """
    It begins with a method that everybody may call, and ends with one that nobody may.
    """
    service = cast.services['Offers']
    order = names(service.name(), u'order')[2:]
    assert 'this is not a service call' in cast.answer(service.name(), u'small', b'00' + order + b'}\x87.')


@pytest.mark.parametrize('waiting', [False, True], ids=['at once', 'behind others'])
def test_a_call_without_authority_has_a_length(cast, waiting):
    offers = cast.services['Offers']
    sibling = cast.router.local()
    cast.router.limits.service_call_bytes = 10000
    if waiting:
        for _ in range(cast.pool.size):
            cast.liar.send(frames=[call(offers.name(), u'wait', reply_to=6)])
        testlib.wait_for(lambda: len(offers.entered) == cast.pool.size)
        cast.liar.send(frames=[call(offers.name(), u'note', reply_to=6)] * 40)
    for size in 20000, 200000:
        answer = cast.answer(offers.name(), u'small', b'}' + b'0}' * (size // 2) + b'\x87.')
        assert 'and the limit is 10000' in answer
    assert cast.router.stats()['refusals'] == {'service_call_bytes': 2}
    offers.gate.set()
    with pytest.raises(CallError) as caught:
        sibling.call(service_targets.call_service, cast.router.myself(), offers.name(), u'small', padding=u'x' * 20000)
    assert 'and the limit is 10000' in str(caught.value)
    with pytest.raises(CallError) as caught:
        cast.router.myself().call_service(offers.name(), u'small', padding=u'x' * 20000)
    assert 'padding' in str(caught.value)


def test_the_names_are_found_in_all_pickles_that_may_come():
    service, method = u'package.Service', u'm\xe9thode'
    request = service, method, {u'a': 1}
    pickles = [pickle.dumps(request, 2), pickle.dumps(request, 3), pickle._dumps(request, 2),
               Message.pickled((service, method, Kwargs({u'a': 1}))).data]
    pickles.append(pickles[0].replace(b'X\x0f\x00\x00\x00', b'\x8c\x0f'))
    for data in pickles:
        assert mitogen.service._names_of(data) == (service, method)


def test_there_are_no_names_where_a_call_is_cut_or_names_are_long():
    whole = names(u'package.Service', u'method')
    assert mitogen.service._names_of(whole) == (u'package.Service', u'method')
    for end in range(len(whole)):
        assert mitogen.service._names_of(whole[:end]) is None
    long = b'X\xe9\x03\x00\x00' + b'x' * 1001
    for data in b'\x80\x02' + long + long, whole[:22] + long, b'\x80\x02X\x01\x00\x00\x00\xff' * 2, b'N.', b'(' + whole:
        assert mitogen.service._names_of(data) is None
