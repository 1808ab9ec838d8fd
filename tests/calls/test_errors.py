"""
The facts that an error of a call tells: its type and text, and the causes, notes, members and
numbers that belong to it.
"""

import collections
import pickle

import pytest

import mitogen.core
import mitogen.master
from mitogen.core import CallError, Message

import error_targets
import pythons
import targets


@pytest.fixture(scope='module')
def child():
    broker = mitogen.master.Broker()
    router = mitogen.master.Router(broker)
    yield router.local()
    broker.shutdown()
    broker.join()


def error_of(child, function, *args):
    with pytest.raises(CallError) as caught:
        child.call(function, *args)
    return caught.value


def test_an_error_has_type_message_and_traceback(child):
    error = error_of(child, targets.fail, u'the text\nin two lines: yes')
    assert (error.type, error.message) == ('builtins.ValueError', 'the text\nin two lines: yes')
    assert error.traceback.startswith('  File "')
    assert 'in fail' in error.traceback
    assert (error.cause, error.context, error.errno, error.notes, error.members) == (None, None, None, [], [])


def test_an_error_tells_of_its_cause(child):
    error = error_of(child, error_targets.fails_from_a_cause)
    assert error.type == 'builtins.ValueError'
    assert (error.cause.type, error.cause.message) == ('builtins.KeyError', "'the reason'")
    assert '_raise(KeyError' in error.cause.traceback
    assert "| cause: builtins.KeyError: 'the reason'\n" in str(error)
    assert 'the reason' not in error.traceback
    assert str(error).startswith('builtins.ValueError: outer\n  File "')


def test_an_error_tells_of_the_one_that_was_handled(child):
    error = error_of(child, error_targets.fails_while_another_is_handled)
    assert error.cause is None
    assert (error.context.type, error.context.message) == ('builtins.KeyError', "'the first'")


def test_an_error_raised_from_none_has_no_context(child):
    error = error_of(child, error_targets.fails_as_if_alone)
    assert error.context is None
    assert '|' not in str(error)


def test_an_error_has_its_notes(child):
    error = error_of(child, error_targets.fails_with_notes)
    assert error.notes == ['note 0\nin two lines', 'note 1\nin two lines']
    assert '\n| note: note 0\n| . in two lines\n| note: note 1' in str(error)


def test_a_group_has_its_members(child):
    error = error_of(child, error_targets.fails_as_a_group, 3, 2)
    assert [member.type for member in error.members] == \
        ['error_targets.Group', 'builtins.ValueError', 'builtins.ValueError']
    inner, one, two = error.members
    assert [inner.members[0].errno, inner.members[1].message, one.message, two.message] == \
        [5, 'member 1', 'member 1', 'member 2']


def test_an_error_has_its_number(child):
    error = error_of(child, error_targets.fails_with_a_number)
    assert (error.type, error.errno) == ('builtins.FileNotFoundError', 2)
    assert '|' not in str(error)
    error = error_of(child, error_targets.fails_with_a_hidden_number)
    assert (error.message, error.errno) == ('no number in the text', 111)


@pytest.mark.parametrize('function, args', [
    (error_targets.fails_after_many, (500,)), (error_targets.fails_with_notes, (1000,)),
    (error_targets.fails_as_a_group, (1000, 30)),
], ids=['causes', 'notes', 'members'])
def test_a_long_chain_is_cut(child, function, args):
    error = error_of(child, function, *args)
    assert '| left out: more' in str(error)
    assert len(str(error)) < 6000
    assert error.type and (error.cause or error.notes or error.members)


def test_a_long_text_keeps_what_is_told_below_it(child):
    # By way of a pickle, which shortens it.
    try:
        error_targets.fails_from_a_cause()
    except ValueError as e:
        e.args = ('y' * 20000,)
        back = Message.pickled(CallError(e)).unpickle(throw=False)
    assert len(str(back)) < 10000
    assert back.cause.message == "'the reason'"
    assert back.message.startswith('yyy')


def test_a_text_with_lines_like_ours_is_only_text(child):
    error = error_of(child, error_targets.fails_with_lines_like_ours)
    assert error.message == 'text\n| cause: builtins.KeyError: a lie\nand on'
    assert error.cause is None


def test_an_error_with_odd_attributes_is_told_as_it_is(child):
    error = error_of(child, error_targets.fails_oddly)
    assert (error.type, error.message, error.errno, error.notes) == ('error_targets.Odd', 'odd', None, [])


def test_an_error_passed_on_by_a_child_keeps_what_it_was_told(child):
    try:
        error_of(child, lambda: None)
    except TypeError:
        pass
    try:
        try:
            error_targets.fails_from_a_cause()
        except ValueError as e:
            raise CallError(e)
    except CallError as e:
        error = CallError(e)
    assert error.type == 'mitogen.core.CallError'
    assert error.message.startswith('builtins.ValueError: outer')
    assert error.cause.message == "'the reason'"


def test_what_an_error_tells_survives_pickles_and_is_plain_text_to_others(child):
    error = error_of(child, error_targets.fails_from_a_cause)
    function, args = error.__reduce__()
    assert function is mitogen.core._unpickle_call_error
    assert args == (str(error),)
    for back in pickle.loads(pickle.dumps(error)), Message.pickled(error).unpickle(throw=False):
        assert back.args == error.args
        assert back.cause.args == error.cause.args


@pytest.mark.parametrize('text', [
    '', '| ', 'a\n| ', 'a.b: c\n| cause', 'a.b: c\n| errno: x\n| errno: ' + '9' * 5000, 'a\n' + '| ' * 4990,
    'a.b: c\n| . dot\n| | bar', 'a.b: [Errno x', 'a.b: c' + '\n| member: d.e: f' * 500,
    'a.b: c' + ''.join('\n' + '| ' * i + 'cause: a.b: c' for i in range(1, 90)),
])
def test_any_text_can_be_understood(text):
    back = mitogen.core._unpickle_call_error(text)
    assert back.args == (text,)
    assert type(back.notes) is type(back.members) is list


def test_an_error_that_was_made_of_text_tells_no_more():
    error = CallError('just text')
    assert (error.type, error.message, error.cause, error.members) == (None, None, None, ())


@pytest.mark.parametrize('python', ['python2.7', 'python3.6'])
def test_a_child_of_an_old_python_tells_what_it_knows(router, python):
    child = router.local(python_path=pythons.find_python(python))
    module = 'exceptions' if python == 'python2.7' else 'builtins'
    error = error_of(child, error_targets.fails_from_a_cause)
    assert (error.type, error.cause.type) == (module + '.ValueError', module + '.KeyError')
    error = error_of(child, error_targets.fails_with_a_number)
    assert error.errno == 2
    error = error_of(child, error_targets.exits, 3)
    assert (error.type, error.message) == (module + '.SystemExit', '3')


# ---- what is no Exception

def test_an_exit_is_an_error_of_that_call(child):
    error = error_of(child, error_targets.exits, 4)
    assert (error.type, error.message) == ('builtins.SystemExit', '4')
    assert child.call(targets.identity, 1) == 1


def test_what_derives_from_base_exception_only_is_an_error_of_that_call(child):
    error = error_of(child, error_targets.fails_as_no_exception)
    assert error.type == 'error_targets.OutOfOrder'
    assert child.call(targets.identity, 1) == 1


# ---- values that may not be sent

@pytest.mark.parametrize('args, kwargs, said', [
    ((1, collections.defaultdict()), {}, "'collections'/'defaultdict'\nargument 2 of targets.all_of is, or has in it, a "
     'value of type defaultdict, which may not be sent. Send dict(value).'),
    ((), {'b': [slice(1)], 'a': {1}}, "'__builtin__'/'slice'\nargument b of targets.all_of is, or has in it, a value of "
     'type slice, which may not be sent. Send what it consists of: text, bytes, numbers, lists, tuples and dicts of these.'),
    ((error_targets.Odd(),), {}, "'error_targets'/'Odd'\nargument 1 of targets.all_of is, or has in it, a value of type "
     'Odd, which may not be sent. Send what it consists of: text, bytes, numbers, lists, tuples and dicts of these, or '
     'register its class, see mitogen.values.'),
], ids=['defaultdict', 'slice', 'object'])
def test_an_argument_that_may_not_be_sent_is_named_where_it_is_given(child, args, kwargs, said):
    with pytest.raises(CallError) as caught:
        child.call_async(targets.all_of, *args, **kwargs)
    assert str(caught.value) == 'mitogen.core.StreamError: cannot unpickle ' + said


@pytest.mark.parametrize('value', ['click\nhere\n', u'c__builtin__\nslice\n', b'c__builtin__\nslice\n', [u'cos\nsystem\n']])
def test_text_that_looks_like_a_class_is_sent(child, value):
    assert child.call(targets.identity, value) == value
