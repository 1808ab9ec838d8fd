"""
Call chains: after a failure nothing more of the chain runs until it is reset.
"""

import threading

import pytest

import mitogen.core
from mitogen.core import CallError
from mitogen.parent import CallChain, CallSpec

import targets


@pytest.fixture
def child(router):
    return router.local()


def test_a_context_has_a_default_chain_without_an_id(child):
    assert isinstance(child.default_call_chain, CallChain)
    assert child.default_call_chain.chain_id is None
    assert child.call_chain_class is CallChain


def test_a_pipelined_chain_has_an_id_of_its_own(child):
    first, second = CallChain(child, pipelined=True), CallChain(child, pipelined=True)
    assert first.chain_id and second.chain_id
    assert first.chain_id != second.chain_id
    assert isinstance(first.chain_id, mitogen.core.UnicodeType)


def test_ids_of_chains_made_by_threads_differ():
    ids = []
    lock = threading.Lock()

    def make():
        for _ in range(200):
            chain_id = CallChain(None, pipelined=True).chain_id
            with lock:
                ids.append(chain_id)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == len(ids)


def test_a_chain_that_did_not_fail_just_calls(child):
    with CallChain(child, pipelined=True) as chain:
        assert chain.call(targets.add, 1, 2) == 3
        chain.call_no_reply(targets.note, 1)
        assert chain.call_async(targets.notes).get(timeout=60).unpickle() == [1]


def test_after_a_failure_nothing_runs_and_every_call_fails_alike(child):
    chain = CallChain(child, pipelined=True)
    chain.call_no_reply(targets.fail_after_note, u'first')
    texts = []
    for _ in range(2):
        with pytest.raises(CallError) as caught:
            chain.call(targets.note, u'second')
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert 'failed after' in texts[0]
    assert child.call(targets.notes) == [u'first']


def test_after_a_reset_a_chain_runs_again(child):
    chain = CallChain(child, pipelined=True)
    chain.call_no_reply(targets.fail)
    chain_id = chain.chain_id
    chain.reset()
    assert chain.chain_id == chain_id
    assert chain.call(targets.add, 1, 2) == 3


def test_the_failed_call_itself_may_have_wanted_an_answer(child):
    chain = CallChain(child, pipelined=True)
    with pytest.raises(CallError):
        chain.call(targets.fail, u'the first')
    with pytest.raises(CallError) as caught:
        chain.call(targets.add, 1, 2)
    assert 'the first' in str(caught.value)


def test_leaving_a_with_block_resets(child):
    chain = CallChain(child, pipelined=True)
    with chain:
        chain.call_no_reply(targets.fail)
    assert chain.call(targets.add, 1, 2) == 3


def test_chains_do_not_touch_each_other(child):
    first, second = CallChain(child, pipelined=True), CallChain(child, pipelined=True)
    receivers = []
    for i in range(10):
        receivers.append((True, first.call_async(targets.fail, u'of the first')))
        receivers.append((False, second.call_async(targets.add, i, 1)))
    for fails, receiver in receivers:
        if fails:
            with pytest.raises(CallError):
                receiver.get(timeout=60).unpickle()
        else:
            assert receiver.get(timeout=60).unpickle() >= 1


def test_a_call_outside_of_a_chain_does_not_mind_it(child):
    chain = CallChain(child, pipelined=True)
    chain.call_no_reply(targets.fail)
    assert child.call(targets.add, 1, 2) == 3


def test_a_failure_in_no_chain_is_not_remembered(child):
    with pytest.raises(CallError):
        child.call(targets.fail)
    assert child.call(targets.add, 1, 2) == 3


def test_a_call_that_could_not_be_made_does_not_spoil_its_chain(child):
    chain = CallChain(child, pipelined=True)
    missing = type(targets)('no_such_module_anywhere')
    exec('def function(): pass', missing.__dict__)
    missing.function.__module__ = missing.__name__
    with pytest.raises(CallError):
        chain.call(missing.function)
    assert chain.call(targets.add, 1, 2) == 3


def test_a_silent_failure_in_a_chain_is_not_logged(child):
    import testlib
    with testlib.LogCapture('') as logs:
        chain = CallChain(child, pipelined=True)
        chain.call_no_reply(targets.fail, u'kept for later')
        with pytest.raises(CallError):
            chain.call(targets.add, 1, 2)
    assert not [r for r in logs.find('kept for later') if r.levelname == 'ERROR']


def test_forget_chain_is_a_class_method_of_the_dispatcher(child):
    chain = CallChain(child, pipelined=True)
    chain.call_no_reply(targets.fail)
    child.call(mitogen.core.Dispatcher.forget_chain, chain.chain_id)
    assert chain.call(targets.add, 1, 2) == 3


def test_reset_of_a_chain_without_id_does_nothing(child):
    CallChain(child).reset()
    assert child.call(targets.add, 1, 2) == 3


def test_repr_names_the_context(child):
    class Own(CallChain):
        pass

    assert repr(CallChain(child)) == 'CallChain(%s)' % (child,)
    assert repr(Own(child)) == 'Own(%s)' % (child,)


def test_make_msg_is_the_tuple_of_the_wire(child):
    msg = CallChain(child).make_msg(targets.Holder.class_method, 1, b=2)
    assert msg.handle == mitogen.core.CALL_FUNCTION
    assert msg.unpickle() == (None, u'targets', u'Holder', u'class_method', (1,), {'b': 2})
    msg = CallChain(child, pipelined=True).make_msg(targets.add)
    assert msg.unpickle()[1:] == (u'targets', None, u'add', (), {})


def test_a_call_spec_reads_like_the_call():
    assert repr(CallSpec(targets.add, (1, u'x'), {})) == "targets.add(1, 'x')"
    assert repr(CallSpec(targets.keywords, (), {'a': 1})) == 'targets.keywords(a=1)'
    assert repr(CallSpec(targets.Holder.class_method, (1,), {})) == 'targets.Holder.class_method(1)'


def test_a_chain_class_of_an_application_is_used(router):
    import mitogen.parent

    class Chain(CallChain):
        calls = 0

        def call(self, fn, *args, **kwargs):
            type(self).calls += 1
            return super(Chain, self).call(fn, *args, **kwargs)

    class Own(mitogen.parent.Context):
        call_chain_class = Chain

    router.context_class = Own
    child = router.local()
    assert child.call(targets.add, 1, 2) == 3
    assert Chain.calls == 1
