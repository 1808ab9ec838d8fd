"""
A variable of the environment with a value that means nothing is named, with what it may be.
"""

import os
import subprocess
import sys

import pytest

import mitogen.core
from mitogen.core import Message, Receiver

import testlib


def run(program, **env):
    return subprocess.run([sys.executable, '-c', program], env=dict(os.environ, **env), capture_output=True, text=True)


#: Imports a module with each of some values of a variable, and prints how that ended.
IMPORTS = '''
import os, sys
import mitogen.core
for value in %r:
    os.environ['MITOGEN_SPIN'] = value
    sys.modules.pop('mitogen.parent', None)
    try:
        import mitogen.parent
        print('imported')
    except ValueError as error:
        print(error)
'''


def test_a_time_to_spin_that_is_no_number_is_named():
    values = ['abc', '-1', 'nan', '1e99', '1,5']
    done = run(IMPORTS % (values,))
    assert done.stdout.splitlines() == [
        'MITOGEN_SPIN is %r, and must be a number of microseconds from 0 to a million, or not set' % value
        for value in values], done.stderr


def test_a_time_to_spin_may_be_a_number_or_nothing():
    done = run(IMPORTS % (['', '0', '12.5'],))
    assert done.stdout.splitlines() == ['imported'] * 3, done.stderr


@pytest.mark.once
@pytest.mark.parametrize('value', ['loud', 'Basic_Format'])
def test_a_level_of_logging_that_there_is_not_is_named(value):
    done = run('import logging, mitogen.utils; mitogen.utils.log_to_file(level="DEBUG"); print(logging.getLogger().level)',
               MITOGEN_LOG_LEVEL=value)
    assert done.stdout == '20\n', done.stderr
    assert 'MITOGEN_LOG_LEVEL is %r, and must be IO, DEBUG, INFO' % (value,) in done.stderr


@pytest.mark.once
@pytest.mark.parametrize('value', ['%(nonsense)s', '%(pid)', '%s.%s', '%(pid)z'])
def test_a_template_of_profiles_that_makes_no_path_is_named_at_once(value):
    done = run('import mitogen.core; mitogen.core.enable_profiling(); print("on")', MITOGEN_PROFILE_FMT=value)
    assert done.stdout == ''
    assert done.stderr.splitlines()[-1] == \
        'ValueError: MITOGEN_PROFILE_FMT is %r, and may hold %%(pid)s, %%(identity)s, %%(now)s and %%(ext)s' % value


@pytest.mark.once
def test_a_core_that_there_is_not_is_named():
    done = run('import mitogen.core', MITOGEN_CORE='fast')
    assert done.stderr.splitlines()[-1] == \
        'ImportError: MITOGEN_CORE is \'fast\', and must be "pure" or "native", or not set'


@pytest.mark.once
@pytest.mark.parametrize('value', ['Pure', 'PURE', 'Native'])
def test_a_core_may_be_written_in_any_case(value):
    done = run('import mitogen.core; print(mitogen.core.CORE)', MITOGEN_CORE=value)
    assert done.stdout == value.lower() + '\n'


def test_a_message_that_is_too_large_is_logged_with_the_limit(router):
    router.max_message_size = 100
    receiver = Receiver(router)
    with testlib.LogCapture('mitogen') as logs:
        receiver.to_sender().send(Message(data=b'x' * 101))
        assert receiver.get(throw_dead=False).is_dead
        logs.wait('message too large (max 100 bytes)')


def test_a_message_without_a_way_is_logged_with_both_ids(router):
    with testlib.LogCapture('mitogen') as logs:
        receiver = mitogen.core.Context(router, 77).send_async(Message(handle=5))
        assert receiver.get(throw_dead=False).is_dead
        logs.wait('no route to context 77 from context 0')


@pytest.mark.once
@pytest.mark.parametrize('value', ['abc', '-1', '1.5', u'\u00b2', '64 MiB'])
def test_a_number_of_bytes_to_keep_that_is_none_is_named(value):
    done = run('import mitogen.master; print(mitogen.master.Router.target_cache_bytes)', MITOGEN_TARGET_CACHE=value,
               PYTHONUTF8='1')
    assert done.stdout == '0\n', done.stderr
    assert 'MITOGEN_TARGET_CACHE must be a number of bytes, not %r' % (value,) in done.stderr


#: Prints where dumps go, here and in a child.
DUMPS = '''
import mitogen.debug
import mitogen.master
import os_of_dumps

with mitogen.master.Router() as router:
    print(mitogen.debug._dump_path, router.local().call(os_of_dumps.path))
'''


def test_a_file_for_dumps_that_cannot_be_written_is_named_and_ends_no_child(tmp_path):
    (tmp_path / 'os_of_dumps.py').write_text('import mitogen.debug\ndef path(): return mitogen.debug._dump_path\n')
    value = str(tmp_path / 'missing' / '%(pid)s.dump')
    done = run(DUMPS, MITOGEN_DEBUG_SIGNAL=value, PYTHONPATH=str(tmp_path))
    assert done.stdout == 'None None\n', done.stderr
    assert 'MITOGEN_DEBUG_SIGNAL is %r, which cannot be written' % (value,) in done.stderr
