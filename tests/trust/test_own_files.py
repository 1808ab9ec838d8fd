"""
Files and sockets that we make: in a folder of the user's own, never through a link, never over
somebody else's. A listener that has no descriptors left, or many clients at once.
"""

import errno
import logging
import os
import pathlib
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import threading

import pytest

import mitogen
import mitogen._private_folder
import mitogen.core
import mitogen.debug
import mitogen.unix
from mitogen.core import PidfulStreamHandler
from mitogen.unix import Listener

import targets
import testlib

ROOT = os.path.dirname(os.path.dirname(mitogen.__file__))
NOBODY = 65534


def mode_of(path):
    return stat.S_IMODE(os.lstat(str(path)).st_mode)


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """
    A folder for temporary files in which everybody may make some; there is no folder for the run of
    a session.
    """
    path = tmp_path / 'shared'
    path.mkdir()
    path.chmod(0o1777)
    monkeypatch.setenv('TMPDIR', str(path))
    monkeypatch.delenv('XDG_RUNTIME_DIR', raising=False)
    return path


@pytest.fixture
def session(tmp_path, monkeypatch):
    """
    A folder for the run of a session, as systemd makes one.
    """
    path = tmp_path / 'session'
    path.mkdir(0o700)
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(path))
    return path


def log_something(folder):
    """
    Have the handler of debug logs write; return the file that it made in a folder.
    """
    before = set(folder.iterdir())
    handler = PidfulStreamHandler()
    handler.emit(logging.LogRecord('name', logging.INFO, 'path', 1, 'some word', (), None))
    handler.stream.close()
    path, = set(folder.iterdir()) - before
    assert 'some word' in path.read_text()
    return path


# ---- the folder

def test_the_folder_of_the_session_is_taken(session, shared, monkeypatch):
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(session))
    assert mitogen.core._private_folder() == str(session)
    assert list(shared.iterdir()) == []


def test_without_one_a_folder_is_made_that_nobody_else_may_enter(shared):
    path = mitogen.core._private_folder()
    assert path == str(shared / ('mitogen.%d' % os.geteuid()))
    assert mode_of(path) == 0o700
    assert mitogen.core._private_folder() == path


@pytest.mark.parametrize('spoil', [
    lambda path: path.chmod(0o750),
    lambda path: os.chown(str(path), NOBODY, NOBODY),
    lambda path: (path.rmdir(), path.symlink_to(path.parent)),
    lambda path: (path.rmdir(), path.write_text('a file')),
    lambda path: path.rmdir(),
])
def test_a_folder_that_others_have_a_say_in_is_not_taken(session, shared, monkeypatch, spoil):
    if os.geteuid() != 0:
        pytest.skip('only root can give a folder away')
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(session))
    spoil(session)
    path = mitogen.core._private_folder()
    assert os.path.dirname(path) == str(shared)


@pytest.mark.parametrize('take', [
    lambda path: path.mkdir(0o777),
    lambda path: (path.mkdir(), os.chown(str(path), NOBODY, NOBODY)),
    lambda path: path.symlink_to(path.parent),
    lambda path: path.symlink_to('nowhere'),
    lambda path: path.write_text('in your way'),
])
def test_where_somebody_is_in_the_way_another_folder_is_made(shared, take):
    taken = shared / ('mitogen.%d' % os.geteuid())
    take(taken)
    if taken.is_dir() and not taken.is_symlink():
        taken.chmod(0o777)
    path = mitogen.core._private_folder()
    assert path.startswith(str(taken) + '.') and mode_of(path) == 0o700


# ---- the debug log

def test_the_debug_log_is_for_its_owner_only(shared):
    folder = pathlib.Path(mitogen.core._private_folder())
    assert mode_of(log_something(folder)) == 0o600
    assert folder.parent == shared


def test_the_debug_log_of_a_child_is_for_its_owner_only(router, session):
    child = router.local(debug=True)
    child.call(targets.identity, 'an argument')
    path, = testlib.wait_for(lambda: list(session.glob('mitogen.%d.*.log' % child.call(os.getpid))))
    assert mode_of(path) == 0o600


@pytest.mark.parametrize('link', [True, False])
def test_the_debug_log_is_never_what_was_there_before(tmp_path, monkeypatch, link):
    # A program may say where it is, and somebody guess the name.
    monkeypatch.setattr(PidfulStreamHandler, 'template', str(tmp_path / '%s.%s.log'))
    monkeypatch.setattr('time.strftime', lambda *args: 'now')
    precious = tmp_path / 'precious'
    precious.write_text('text')
    guessed = tmp_path / ('%d.now.log' % os.getpid())
    if link:
        guessed.symlink_to(precious)
    else:
        os.link(str(precious), str(guessed))
    assert log_something(tmp_path).name == '%d.now.1.log' % os.getpid()
    assert precious.read_text() == 'text'


# ---- profiles and dumps

PROFILED = '''
import mitogen.core
mitogen.core.enable_profiling()
mitogen.core._profile_hook('some-thread', sorted, [3, 1])
'''


def run_python(program, *args):
    env = dict(os.environ, PYTHONPATH=ROOT)
    return subprocess.run([sys.executable, '-c', program] + list(args), env=env, cwd='/', stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True, timeout=60)


def test_profiles_are_for_their_owner_only(shared, monkeypatch):
    monkeypatch.delenv('MITOGEN_PROFILE_FMT', raising=False)
    done = run_python(PROFILED)
    assert done.returncode == 0, done.stdout
    folder = shared / ('mitogen.%d' % os.geteuid())
    assert mode_of(folder) == 0o700
    files = sorted(folder.iterdir())
    assert [path.suffix for path in files] == ['.log', '.pstats']
    assert [mode_of(path) for path in files] == [0o600] * 2


def test_a_profile_is_not_written_through_a_link(tmp_path, monkeypatch):
    (tmp_path / 'precious').write_text('text')
    (tmp_path / 'p.pstats').symlink_to('precious')
    monkeypatch.setenv('MITOGEN_PROFILE_FMT', str(tmp_path / 'p.%(ext)s'))
    assert run_python(PROFILED).returncode != 0
    assert (tmp_path / 'precious').read_text() == 'text'


def test_a_profile_may_be_written_again(tmp_path, monkeypatch):
    monkeypatch.setenv('MITOGEN_PROFILE_FMT', str(tmp_path / 'p.%(ext)s'))
    (tmp_path / 'p.log').write_text('x' * 100000)
    assert run_python(PROFILED).returncode == 0
    assert 'x' * 100 not in (tmp_path / 'p.log').read_text()


@pytest.fixture
def dump_to(monkeypatch):
    def dump(path):
        monkeypatch.setattr(mitogen.debug, '_dump_path', str(path))
        mitogen.debug._write_dump()
    return dump


def test_a_dump_is_for_its_owner_only_and_grows(tmp_path, dump_to):
    path = tmp_path / 'dump'
    dump_to(path)
    size = path.stat().st_size
    dump_to(path)
    assert path.stat().st_size > size > 0
    assert mode_of(path) == 0o600


def test_a_dump_is_not_written_through_a_link(tmp_path, dump_to):
    (tmp_path / 'dump').symlink_to('precious')
    with pytest.raises(OSError):
        dump_to(tmp_path / 'dump')
    assert not (tmp_path / 'precious').exists()


def test_a_dump_is_not_written_to_a_file_of_another_user(tmp_path, dump_to):
    if os.geteuid() != 0:
        pytest.skip('only root can give a file away')
    path = tmp_path / 'dump'
    path.write_text('')
    os.chown(str(path), NOBODY, NOBODY)
    with pytest.raises(OSError) as caught:
        dump_to(path)
    assert caught.value.errno == errno.EPERM
    assert path.read_text() == ''


# ---- the socket

def test_a_socket_without_a_name_is_in_a_folder_of_ours(router, shared, monkeypatch):
    # The path of a socket has some 100 letters at most.
    with tempfile.TemporaryDirectory(dir='/tmp') as short:
        monkeypatch.setenv('TMPDIR', short)
        check_socket_without_a_name(router, short)


def check_socket_without_a_name(router, folder):
    path = Listener.build_stream(router).protocol.path
    assert os.path.dirname(path) == os.path.join(folder, 'mitogen.%d' % os.geteuid())
    assert mode_of(path) == 0o600 and mode_of(os.path.dirname(path)) == 0o700
    assert os.path.basename(path).startswith('mitogen_unix_')


def test_a_listener_leaves_a_socket_alone_that_is_not_its_own(make_router, router, tmp_path):
    # Another one has taken over the path meanwhile.
    path = str(tmp_path / 'sock')
    first = make_router()
    Listener.build_stream(first, path=path)
    os.unlink(path)
    Listener.build_stream(router, path=path)
    first.broker.shutdown()
    first.broker.join()
    assert not mitogen.unix.is_path_dead(path)


@pytest.mark.parametrize('other', [
    lambda path: open(path, 'w').close(), os.mkdir, lambda path: os.symlink('nowhere', path)])
def test_a_listener_removes_nothing_that_is_no_socket(make_router, tmp_path, other):
    path = str(tmp_path / 'sock')
    router = make_router()
    Listener.build_stream(router, path=path)
    os.unlink(path)
    other(path)
    router.broker.shutdown()
    router.broker.join()
    assert os.path.lexists(path)


def test_a_stale_socket_is_not_removed_once_it_is_another_one(router, tmp_path, monkeypatch):
    path = str(tmp_path / 'sock')
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    live = socket.socket(socket.AF_UNIX)
    is_path_dead = mitogen.unix.is_path_dead

    def and_replace(path):
        dead = is_path_dead(path)
        os.unlink(path)
        live.bind(path)
        live.listen(1)
        return dead

    monkeypatch.setattr(mitogen.unix, 'is_path_dead', and_replace)
    with pytest.raises(OSError) as caught:
        Listener.build_stream(router, path=path)
    assert caught.value.errno == errno.EADDRINUSE
    assert not is_path_dead(path)
    sock.close()
    live.close()


@pytest.fixture
def full_queue(tmp_path):
    """
    The path of a listener that accepts nobody, and whose queue is full.
    """
    path = str(tmp_path / 'sock')
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    first = socket.socket(socket.AF_UNIX)
    first.connect(path)
    yield path
    first.close()
    listener.close()


def test_to_look_whether_a_path_is_dead_does_not_wait(full_queue):
    assert not mitogen.unix.is_path_dead(full_queue)


# ---- no descriptors left

@pytest.fixture
def starved(make_router, tmp_path, monkeypatch):
    """
    A listener with a client that it has no descriptor for. `turns` says when it tried to accept
    one; `feed` gives it descriptors again.
    """
    class Starved(object):
        turns = []

    result = Starved()
    on_receive = mitogen.unix.ListenerStream.on_receive
    tried = threading.Semaphore(0)

    def count(self, broker):
        result.turns.append(mitogen.core.now())
        tried.release()
        on_receive(self, broker)

    def wait(turns):
        while len(result.turns) < turns:
            assert tried.acquire(timeout=60)

    monkeypatch.setattr(mitogen.unix.ListenerStream, 'on_receive', count)
    result.wait = wait
    result.router = make_router()
    result.listener = Listener.build_stream(result.router, path=str(tmp_path / 'sock'))
    result.client = socket.socket(socket.AF_UNIX)
    result.client.settimeout(60)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # No number is free below the one that the next file would get.
    spare = os.open('/dev/null', os.O_RDONLY)
    os.close(spare)
    result.feed = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with testlib.LogCapture('mitogen.unix') as result.logs:
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        try:
            result.client.connect(result.listener.protocol.path)
            yield result
        finally:
            result.feed()
    result.client.close()


def test_a_listener_without_descriptors_waits_for_them(starved):
    starved.wait(4)
    starved.feed()
    # Between two attempts it sleeps, however slow the machine is.
    for before, after in zip(starved.turns, starved.turns[1:4]):
        assert after - before >= 0.9 * mitogen.unix._STARVED_PAUSE
    # Others are served meanwhile, and it says so once.
    assert starved.router.broker.defer_sync(lambda: 5) == 5
    assert len(starved.logs.find('no client can be accepted', logging.WARNING)) == 1
    # The client was in the queue all the time.
    starved.client.sendall(b'\0\0\0\1')
    assert starved.client.recv(12)


def test_a_listener_without_descriptors_ends_and_removes_its_socket(starved):
    starved.wait(1)
    starved.router.broker.shutdown()
    starved.router.broker.join()
    assert not os.path.exists(starved.listener.protocol.path)


def test_a_listener_without_descriptors_may_be_closed(starved):
    starved.wait(1)
    broker = starved.router.broker
    broker.defer_sync(lambda: starved.listener.on_disconnect(broker))
    assert broker.defer_sync(broker.timers.get_timeout) is None


# ---- many clients

def test_five_hundred_clients_at_once_all_get_in(router, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    stream = Listener.build_stream(router, path=str(tmp_path / 'sock'), backlog=5)
    held, go_on = mitogen.core.Latch(), mitogen.core.Latch()
    # All of them come while nobody is accepted.
    router.broker.defer(lambda: (held.put(), go_on.get(timeout=60)))
    held.get(timeout=60)
    socks = [socket.socket(socket.AF_UNIX) for _ in range(500)]
    threads = [lambda sock=sock: mitogen.unix._shake_hands(stream.protocol.path, sock) for sock in socks]
    try:
        results = testlib.in_threads(threads + [lambda: (mitogen.core.time.sleep(0.5), go_on.put())], 100)
    finally:
        for sock in socks:
            sock.close()
    assert [r for r in results if isinstance(r, Exception)] == []
    assert len(set(context_id for context_id, _, _ in results[:-1])) == 500
    testlib.wait_for(lambda: router.get_streams() == [])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_queue_that_stays_full_is_given_up(full_queue, monkeypatch):
    monkeypatch.setattr(mitogen.unix, 'CONNECT_TIMEOUT', 0.3)
    with pytest.raises(mitogen.unix.ConnectError) as caught:
        mitogen.unix.connect(full_queue)
    assert caught.value.errno == errno.ETIMEDOUT


# ---- a process that joins twice

TWICE = '''
import os, sys, time
import mitogen, mitogen.core, mitogen.unix
first, one = mitogen.unix.connect(sys.argv[1])
child = first.context_by_id(int(sys.argv[2]))
receiver = child.call_async(time.sleep, 600)
second, two = mitogen.unix.connect(sys.argv[1])
own_id = mitogen.context_id
try:
    receiver.get(timeout=60)
except mitogen.core.ChannelError:
    print('told')
try:
    child.call(os.getpid)
except mitogen.core.ChannelError:
    print('told')
print(second.context_by_id(int(sys.argv[3])).call(os.getpid) > 0, mitogen.context_id == own_id)
first.broker.shutdown()
first.broker.join()
print(second.context_by_id(int(sys.argv[3])).call(os.getpid) > 0, mitogen.context_id == own_id)
second.broker.shutdown()
second.broker.join()
print(mitogen.context_id, mitogen.parent_ids)
'''


def test_a_process_that_joins_again_leaves_and_nobody_waits_for_ever(router, tmp_path):
    path = Listener.build_stream(router, path=str(tmp_path / 'sock')).protocol.path
    ids = [str(router.local().context_id) for _ in range(2)]
    done = run_python(TWICE, path, *ids)
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if 'No handlers' not in line]
    assert lines[-5:] == ['told', 'told', 'True True', 'True True', '0 []']


def test_a_link_in_the_way_of_private_folders_leads_nowhere(tmp_path, monkeypatch):
    place, victim = tmp_path / 'place', tmp_path / 'victim'
    for folder in place, victim:
        folder.mkdir()
    (victim / 'file').write_text('x')
    left = place / (mitogen._private_folder.PREFIX + 'left')
    left.mkdir()
    (left / 'inside').symlink_to(victim)
    locked = place / (mitogen._private_folder.PREFIX + 'locked')
    locked.mkdir()
    (locked / mitogen._private_folder.LOCK).symlink_to(victim / 'file')
    link = place / (mitogen._private_folder.PREFIX + 'link')
    link.symlink_to(victim)
    for path in left, locked, victim:
        os.utime(str(path), (0, 0))
    monkeypatch.setattr(mitogen._private_folder, 'places', lambda: [str(place)])
    mitogen._private_folder.sweep()
    # The folder that was left behind goes, and nothing that a link leads to.
    assert not left.exists() and link.is_symlink() and locked.exists()
    assert (victim / 'file').read_text() == 'x'
