"""
Aids for debugging: a log file of its own for each process, and profiles of the threads.
Router.enable_debug and Router.profiling.
"""

import logging
import os
import pstats
import subprocess
import sys

import pytest

import mitogen.core
import pythons
import targets
from testlib import wait_for


@pytest.fixture
def clean_logging():
    """
    Puts handlers and levels back.
    """
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = [(name, logging.getLogger(name).level) for name in mitogen.core.LOGGERS]
    yield root
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
            if getattr(handler, 'stream', None) not in (None, sys.stderr):
                handler.stream.close()
    root.handlers[:] = handlers
    for name, level in levels:
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def logs_in(monkeypatch, tmp_path):
    monkeypatch.setattr(mitogen.core.PidfulStreamHandler, 'template', str(tmp_path / 'mitogen.%s.%s.log'))
    return tmp_path


def test_debug_logging_goes_first_to_a_file_of_the_process(clean_logging, logs_in):
    mitogen.core.enable_debug_logging()
    handler = clean_logging.handlers[0]
    assert isinstance(handler, mitogen.core.PidfulStreamHandler)
    assert isinstance(handler, logging.StreamHandler)
    assert handler.open_pid is None
    assert [logging.getLogger(name).level for name in mitogen.core.LOGGERS] == [logging.DEBUG] * 3
    logging.getLogger('mitogen.io').debug('a word %d', 5)
    assert handler.open_pid == os.getpid()
    path, = logs_in.iterdir()
    assert path.name.startswith('mitogen.%d.' % (os.getpid(),))
    # Not buffered beyond a line, and not inherited.
    assert 'mitogen.io: a word 5' in path.read_text()
    assert not os.get_inheritable(handler.stream.fileno())


def test_a_forked_process_opens_a_file_of_its_own(clean_logging, logs_in):
    handler = mitogen.core.PidfulStreamHandler()
    record = logging.LogRecord('name', logging.INFO, 'path', 1, 'parent', (), None)
    handler.emit(record)
    pid = os.fork()
    if not pid:
        try:
            handler.emit(logging.LogRecord('name', logging.INFO, 'path', 1, 'child', (), None))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    texts = dict((path.name.split('.')[1], path.read_text()) for path in logs_in.iterdir())
    assert sorted(texts) == sorted([str(os.getpid()), str(pid)])
    assert 'parent' in texts[str(os.getpid())] and 'child' not in texts[str(os.getpid())]
    assert 'child' in texts[str(pid)]
    handler.stream.close()


def test_enable_debug_of_a_router_reaches_children(router, clean_logging, logs_in, tmp_path, monkeypatch):
    folder = tmp_path / 'private'
    folder.mkdir(0o700)
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(folder))
    router.enable_debug()
    assert router.debug is True
    context = router.local()
    pid = context.call(os.getpid)
    path, = wait_for(lambda: list(folder.glob('mitogen.%d.*.log' % (pid,))))
    assert 'Python version is' in path.read_text()
    assert context.call(targets.identity, 1) == 1
    context.shutdown(wait=True)
    assert clean_logging.handlers[0].open_pid == os.getpid()


PROFILED = r'''
import sys
sys.path[:] = [path for path in sys.path if path]
import mitogen.core
assert mitogen.core._profile_hook.__name__ == '_profile_hook'
assert mitogen.core._profile_hook('name', max, 1, 2) == 2
mitogen.core.enable_profiling()
assert mitogen.core._profile_hook.__name__ != '_profile_hook'
assert mitogen.core._profile_hook('some-thread', sorted, [3, 1]) == [1, 3]
'''


def test_profiles_are_written_where_the_template_says(tmp_path):
    env = dict(os.environ, MITOGEN_PROFILE_FMT=str(tmp_path / '%(pid)s.%(identity)s.%(now)s.%(ext)s'))
    proc = subprocess.Popen([sys.executable, '-c', PROFILED], env=env, cwd=str(tmp_path))
    assert proc.wait() == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [(n.split('.')[0], n.split('.')[1], n.split('.')[3]) for n in names] == [
        (str(proc.pid), 'some-thread', 'log'), (str(proc.pid), 'some-thread', 'pstats')]
    stats = pstats.Stats(str(tmp_path / names[1]))
    assert any('sorted' in key[2] for key in stats.stats)
    assert 'sorted' in (tmp_path / names[0]).read_text()


# cProfile is another thing since 3.12.
@pytest.mark.parametrize('version', ['python3.11', 'python3.12', 'python3.13'])
def test_a_child_that_is_profiled_ends_by_itself(router, tmp_path, monkeypatch, version):
    monkeypatch.setenv('MITOGEN_PROFILE_FMT', str(tmp_path / '%(pid)s.%(identity)s.%(now)s.%(ext)s'))
    context = router.local(profiling=True, python_path=pythons.find_python(version))
    pid = context.call(os.getpid)
    proc = router.stream_by_id(context.context_id).conn.proc
    context.shutdown(wait=True)
    # No signal: the child would lose its measurements.
    assert wait_for(lambda: proc.proc.returncode is not None, what='the child was reaped')
    assert proc.proc.returncode == 0
    names = [path.name for path in tmp_path.iterdir()]
    assert [n for n in names if n.startswith('%d.mitogen.child_main' % (pid,))]
    assert [n for n in names if n.startswith('%d.mitogen.broker' % (pid,))]
