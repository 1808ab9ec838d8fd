"""
The end of a child in good order: asked to end while it is in no call, it does what any program does
at its end.
"""

import os
import sys

import pytest

import mitogen.core

import ending_targets
import pythons
import targets
import testlib


def end_by_shutdown(router, context):
    context.shutdown(wait=True)


def end_with_the_connection(router, context):
    pid = context.call(os.getpid)
    router.disconnect(context)
    testlib.wait_for(lambda: not testlib.is_running(pid))


def end_with_the_master(router, context):
    router.broker.shutdown()
    router.broker.join()


WAYS = pytest.mark.parametrize('end', [end_by_shutdown, end_with_the_connection, end_with_the_master])


@WAYS
def test_functions_that_were_registered_for_the_end_are_called(router, tmp_path, end):
    child = router.local()
    child.call(ending_targets.write_at_the_end, str(tmp_path / 'out'), u'done')
    end(router, child)
    assert (tmp_path / 'out').read_text() == 'done'


def test_a_temporary_directory_is_removed(router):
    child = router.local()
    path = child.call(ending_targets.make_temporary_directory)
    assert os.path.isdir(path)
    child.shutdown(wait=True)
    assert not os.path.exists(path)


@pytest.mark.parametrize('name', ['stdout', 'stderr'])
def test_what_was_printed_without_an_end_is_logged(router, name):
    with testlib.LogCapture('') as logs:
        child = router.local(name=u'bob')
        child.call(ending_targets.print_without_an_end, u'no end', name)
        child.shutdown(wait=True)
        logs.wait('no end', name=name + '.[bob]')


def test_what_is_printed_at_the_end_is_logged(router):
    with testlib.LogCapture('') as logs:
        child = router.local(name=u'bob')
        child.call(ending_targets.print_at_the_end, u'the last words')
        child.shutdown(wait=True)
        logs.wait('the last words', name='stdout.[bob]')


def test_what_another_program_printed_without_an_end_is_logged(router):
    with testlib.LogCapture('') as logs:
        child = router.local(name=u'bob')
        child.call(os.write, 1, b'raw')
        child.shutdown(wait=True)
        logs.wait('raw', name='stdout.[bob]')


def test_a_function_that_does_not_return_does_not_keep_the_child(router):
    child = router.local()
    pid = child.call(ending_targets.wait_at_the_end)
    child.shutdown(wait=True)
    testlib.wait_for(lambda: not testlib.is_running(pid))


def test_a_function_that_raises_does_not_keep_others_from_being_called(router, tmp_path):
    child = router.local()
    child.call(ending_targets.write_at_the_end, str(tmp_path / 'out'), u'done')
    child.call(ending_targets.fail_at_the_end)
    child.shutdown(wait=True)
    assert (tmp_path / 'out').read_text() == 'done'


def test_a_child_in_a_call_ends_at_once(router):
    child = router.local()
    call = child.call_async(targets.sleep, 600)
    child.call_service_async('no.such', 'thing')
    child.shutdown(wait=True)
    with pytest.raises(mitogen.core.ChannelError):
        call.get()


def test_a_fork_does_not_do_what_its_parent_registered(router, tmp_path):
    child = router.local()
    path = child.call(ending_targets.make_temporary_directory)
    child.call(ending_targets.write_at_the_end, str(tmp_path / 'out'), u'done')
    fork = router.fork(via=child)
    fork.call(ending_targets.print_without_an_end, u'')
    fork.shutdown(wait=True)
    assert os.path.isdir(path)
    assert not (tmp_path / 'out').exists()
    child.shutdown(wait=True)
    assert (tmp_path / 'out').read_text() == 'done'


@pytest.mark.parametrize('python', ['python2.7', 'python3.6'])
def test_an_old_python_does_so_too(router, tmp_path, python):
    child = router.local(python_path=pythons.find_python(python))
    child.call(ending_targets.write_at_the_end, str(tmp_path / 'out'), u'done')
    child.shutdown(wait=True)
    assert (tmp_path / 'out').read_text() == 'done'


def test_a_tree_ends_level_by_level(router, tmp_path):
    child = router.local()
    below = router.local(via=child, python_path=sys.executable)
    below.call(ending_targets.write_at_the_end, str(tmp_path / 'out'), u'below ')
    child.call(ending_targets.write_at_the_end, str(tmp_path / 'out'), u'above ')
    router.broker.shutdown()
    router.broker.join()
    assert sorted((tmp_path / 'out').read_text().split()) == ['above', 'below']
