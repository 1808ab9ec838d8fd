"""
Answers of the parent about modules and data may be damaged. The import that waits fails, and the
next one asks again.
"""

import contextlib
import sys
import zlib

import pytest

import mitogen.core
from mitogen.core import CallError, Message

import closure_child
import pythons
import testlib

BARE = ['/usr/bin/env', sys.executable]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """
    A package that only this process can import.
    """
    package = tmp_path / 'site' / 'dam_pkg'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text('value = 1\n')
    (package / 'inner.py').write_text('value = 2\n')
    (package / 'data.txt').write_text('text')
    monkeypatch.syspath_prepend(str(package.parent))


@contextlib.contextmanager
def spoilt(router, handle, spoil):
    """
    Have the master send something else: as often as it is asked, since an import may ask twice.

    :param spoil: function that changes a message, and returns whether it has.
    """
    # The end of an earlier answer may not be sent yet: a child goes on before it has that.
    testlib.wait_for(lambda: not any(
        getattr(getattr(stream.protocol, '_push', None), '_messages', None) for stream in router._streams()))
    route = router._async_route
    count = [0]

    def send(msg, *args):
        if msg.handle == handle and (spoil is cut_the_last or b'dam_pkg' in bytes(msg.data)):
            count[0] += spoil(msg)
        return route(msg, *args)

    router._async_route = send
    try:
        yield
        # The child does not wait for the last message.
        testlib.wait_for(lambda: count[0])
    finally:
        del router._async_route


def cut(msg):
    msg.data = bytes(msg.data)[:-3]
    return True


def garble(msg):
    msg.data = b'\x80\x02nonsense'
    return True


def cut_the_last(msg):
    """The child is not to ask before it has that one."""
    head = next(msg.unpickle_iter())
    return not head[0] and not head[1] and cut(msg)


def other_shape(msg):
    msg.data = Message.pickled([u'dam_pkg']).data
    return True


def no_module(msg):
    msg.data = Message.pickled((u'dam_pkg', None, 7, None, ())).data
    return True


def no_modules(msg):
    msg.data = Message.pickled((u'', True, [(u'dam_pkg', None)]), b'').data
    return True


def no_content(msg):
    msg.data = Message.pickled((u'dam_pkg', None, u'dam_pkg.py', mitogen.core.Blob(b'no archive'), ())).data
    return True


def no_bytecode(msg):
    content = zlib.compress(__import__('_frozen_importlib_external').MAGIC_NUMBER + bytes(12) + b'nonsense')
    msg.data = Message.pickled((u'dam_pkg', None, u'dam_pkg.py', mitogen.core.Blob(content), ())).data
    return True


def fails(child, name='dam_pkg'):
    with pytest.raises(CallError) as e:
        child.call(closure_child.value_in, name, 'value')
    assert child.call(closure_child.value_in, 'json', '1') == 1
    text = str(e.value)
    assert text.startswith(('ImportError', 'exceptions.ImportError', 'builtins.ImportError')), text
    assert repr(name) in text.replace("u'", "'")
    return text


@pytest.mark.parametrize('python', ['same', 'bare', 'python2.7', 'python3.6'])
def test_an_import_whose_answer_is_damaged_fails_and_the_next_one_asks_again(router, folder, python):
    path = {'same': sys.executable, 'bare': BARE}.get(python) or pythons.find_python(python)
    child = router.local(python_path=path)
    child.call(closure_child.value_in, 'json', '1')
    for spoil, why in [(cut, ''), (garble, ''), (other_shape, 'ValueError'), (no_module, 'ValueError: no description'),
                       (no_content, 'Error -3')]:
        with spoilt(router, mitogen.core.LOAD_MODULE, spoil):
            text = fails(child)
        assert 'has sent something that cannot be read' in text and why in text
    assert child.call(closure_child.value_in, 'dam_pkg', 'value') == 1
    assert child.call(closure_child.value_in, 'dam_pkg.inner', 'value') == 2


@pytest.mark.parametrize('spoil', [cut_the_last, no_modules, no_bytecode])
def test_a_damaged_answer_with_several_modules_fails_alike(router, folder, spoil):
    child = router.local(python_path=BARE)
    child.call(closure_child.value_in, 'json', '1')
    with spoilt(router, mitogen.core.LOAD_MODULE, spoil):
        try:
            child.call(closure_child.value_in, 'dam_pkg', 'value')
        except CallError as e:
            assert 'cannot be read' in str(e)
            assert spoil is not cut_the_last
    assert child.call(closure_child.value_in, 'dam_pkg', 'value') == 1
    assert child.call(closure_child.value_in, 'dam_pkg.inner', 'value') == 2


def test_the_first_answer_of_all_may_be_damaged(router, folder):
    child = router.local(python_path=BARE)
    with spoilt(router, mitogen.core.LOAD_MODULE, garble):
        with pytest.raises(CallError) as e:
            child.call(eval, "__import__('dam_pkg')")
    assert 'cannot be read' in str(e.value)
    assert child.call(eval, "__import__('dam_pkg').value") == 1


@pytest.mark.parametrize('python', ['bare', 'python2.7'])
def test_a_child_of_a_child_of_a_child_is_told_why_and_asks_again(router, folder, python):
    child = router.local(python_path=BARE)
    below = router.local(via=child, python_path=BARE)
    lowest = router.local(via=below, python_path=BARE if python == 'bare' else pythons.find_python(python))
    for context in lowest, below:
        context.call(closure_child.value_in, 'json', '1')
        with spoilt(router, mitogen.core.LOAD_MODULE, garble):
            assert "asked for 'dam_pkg', and has sent something that cannot be read" in fails(context)
    for context in lowest, below, child:
        assert context.call(closure_child.value_in, 'dam_pkg', 'value') == 1


def test_the_spec_of_a_module_whose_answer_is_damaged_is_an_error(router, folder):
    child = router.local(python_path=BARE)
    child.call(closure_child.value_in, 'json', '1')
    with spoilt(router, mitogen.core.LOAD_MODULE, garble):
        with pytest.raises(CallError) as e:
            child.call(eval, "__import__('importlib.util').util.find_spec('dam_pkg')")
    assert 'cannot be read' in str(e.value)
    assert child.call(eval, "__import__('importlib.util').util.find_spec('dam_pkg').name") == 'dam_pkg'


def test_data_whose_answer_is_damaged_is_not_waited_for(router, folder):
    child = router.local(python_path=BARE)
    child.call(closure_child.value_in, 'dam_pkg', 'value')
    read = "__import__('pkgutil').get_data('dam_pkg', 'data.txt')"
    with spoilt(router, mitogen.core.LOAD_RESOURCE, garble):
        with pytest.raises(CallError) as e:
            child.call(eval, read)
    assert 'OSError' in str(e.value) or 'FileNotFoundError' in str(e.value)
    assert child.call(eval, read) == b'text'
