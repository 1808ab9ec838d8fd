"""
CallChain and CallSpec: the messages of calls.
"""

import os
import socket
import threading
from unittest import mock

import pytest

import mitogen
import mitogen.core
import mitogen.parent
from mitogen.parent import CallChain, CallSpec


class Holder(object):
    @classmethod
    def class_method(cls):
        pass

    def method(self):
        pass


class Child(Holder):
    pass


def plain(*args, **kwargs):
    pass


def made_closure():
    value = 1
    return lambda: value


@pytest.fixture
def chain():
    return CallChain(mitogen.core.Context(None, 7, u'x'))


def test_a_chain_names_its_context(chain):
    class Other(CallChain):
        pass

    assert repr(chain) == "CallChain(%r)" % (chain.context,)
    assert repr(Other(chain.context)).startswith('Other(')
    assert chain.chain_id is None


@pytest.mark.parametrize('function, message', [
    (lambda: None, CallChain.lambda_msg),
    (made_closure(), CallChain.closures_msg),
    (Holder().method, CallChain.method_msg),
    ([].append, CallChain.method_msg),
], ids=['lambda', 'closure', 'method', 'built-in-method'])
def test_what_has_no_name_elsewhere_is_refused(chain, function, message):
    with pytest.raises(TypeError) as caught:
        chain.make_msg(function)
    assert caught.value.args[0] == message


@pytest.mark.parametrize('function, names', [
    (plain, (__name__, None, 'plain')),
    (os.path.join, ('posixpath', None, 'join')),
    (os.getpid, ('posix', None, 'getpid')),
    (Holder.class_method, (__name__, 'Holder', 'class_method')),
    (Child.class_method, (__name__, 'Child', 'class_method')),
])
def test_what_has_a_name_is_sent_by_it(chain, function, names):
    msg = chain.make_msg(function, 1, u'two', three=3)
    assert msg.handle == mitogen.core.CALL_FUNCTION
    assert msg.unpickle() == (None,) + names + ((1, u'two'), {'three': 3})
    assert type(msg.unpickle()[5]) is mitogen.core.Kwargs


def test_calls_without_keywords_carry_empty_ones(chain):
    assert chain.make_msg(plain).unpickle() == (None, __name__, None, 'plain', (), {})


def test_pipelined_chains_have_ids_of_their_own():
    context = mitogen.core.Context(None, 7)
    ids = [CallChain(context, pipelined=True).chain_id for _ in range(1000)]
    assert len(set(ids)) == 1000
    host, pid, thread, usec = ids[0].rsplit('-', 3)
    assert (host, int(pid)) == (socket.gethostname(), os.getpid())
    assert int(thread, 16) == threading.get_ident()
    int(usec, 16)


def test_a_reset_is_sent_outside_of_the_chain():
    sent = []
    context = mock.Mock(send=sent.append)
    CallChain(context).reset()
    assert sent == []
    with CallChain(context, pipelined=True) as chain:
        kept = chain.chain_id
    msg, = sent
    assert chain.chain_id == kept
    assert not msg.reply_to
    assert msg.unpickle() == (None, 'mitogen.core', 'Dispatcher', 'forget_chain', (kept,), {})


def test_a_call_is_one_message_and_one_wait():
    context = mock.Mock()
    context.send_async.return_value.get.return_value.unpickle.return_value = 'result'
    chain = CallChain(context)
    assert chain.call(plain, 1) == 'result'
    assert chain.call_async(plain, 1) is context.send_async.return_value
    assert context.send_async.call_count == 2
    chain.call_no_reply(plain, 2)
    msg, = context.send.call_args[0]
    assert msg.unpickle()[4] == (2,)


def test_a_subclass_may_replace_the_asynchronous_call():
    class Recorder(CallChain):
        def call_async(self, fn, *args, **kwargs):
            self.seen = fn, args, kwargs
            return mock.Mock()

    chain = Recorder(mock.Mock())
    chain.call(plain, 1, k=2)
    assert chain.seen == (plain, (1,), {'k': 2})


def test_contexts_are_equal_by_router_and_id():
    one, other = object(), object()
    context = mitogen.parent.Context(one, 1, u'a')
    same = mitogen.parent.Context(one, 1, u'b')
    assert context == same and hash(context) == hash(same)
    assert context != mitogen.parent.Context(one, 2)
    assert context != mitogen.parent.Context(other, 1)
    assert context != 1
    assert context.via is None


def test_a_call_spec_reads_like_the_call():
    assert repr(CallSpec(os.path.join, ('a', 1), {'k': 2})) == "posixpath.join('a', 1, k=2)"
    assert repr(CallSpec(Holder.class_method, (), {})) == __name__ + '.Holder.class_method()'
