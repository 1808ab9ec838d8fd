"""
The examples that are about other hosts do what they say, with a server of the tests' own.
"""

import fcntl
import os
import pty
import pwd
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios

import accounts
import pytest
import places
import sshd
import testlib

EXAMPLES = os.path.join(places.ROOT, 'examples')

pytestmark = pytest.mark.skipif(not os.path.exists(EXAMPLES), reason='needs the source tree')

account = accounts.account
running_server = sshd.running_server
server = sshd.server

CONFIG = '''
Host bastion one two
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {key}
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {known}
    GlobalKnownHostsFile /dev/null
'''


def write_config(path, server, key):
    with open(path, 'w') as fp:
        fp.write(CONFIG.format(port=server.port, user=server.account.name, key=key, known=server.path('known')))


@pytest.fixture
def config(server):
    """
    Arguments that make hosts called bastion, one and two of the server, also for users that are
    logged in there.
    """
    write_config(server.path('client'), server, server.path('user_key'))
    folder = os.path.join(server.account.home, '.ssh')
    os.mkdir(folder, 0o700)
    shutil.copyfile(server.path('user_key'), os.path.join(folder, 'key'))
    write_config(os.path.join(folder, 'config'), server, os.path.join(folder, 'key'))
    for path in folder, os.path.join(folder, 'key'), os.path.join(folder, 'config'):
        os.chown(path, server.account.uid, server.account.gid)
        os.chmod(path, 0o700 if path == folder else 0o600)
    yield ['--ssh-config', server.path('client'), '--python', server.account.python]
    shutil.rmtree(folder)


def command(name, *args):
    return [sys.executable, os.path.join(EXAMPLES, name)] + list(args)


def run(name, *args, **kwargs):
    """
    Run an example to its end; return (what it printed, what it printed as errors).
    """
    status = kwargs.pop('status', 0)
    proc = subprocess.run(command(name, *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, text=True, timeout=100)
    assert proc.returncode == status, proc.stdout + proc.stderr
    assert 'Traceback' not in proc.stdout + proc.stderr
    return proc.stdout, proc.stderr


# ---- mitop

def tables(text):
    """
    Return a list of tables: for each the processes of each host, as host -> pid -> command.
    """
    found = []
    for block in text.split('\n\n'):
        rows = re.findall(r'^(\S+) +(\d+) \S+ +[0-9.]+ +\d+  (\S.*)$', block, re.M)
        table = {}
        for host, pid, command_ in rows:
            table.setdefault(host, {})[int(pid)] = command_
        if rows:
            found.append(table)
    return found


def test_a_process_table_of_this_host():
    started = subprocess.Popen(['sleep', '1234.5'])
    try:
        # Wide enough for the path of any checkout.
        out, err = run('mitop.py', '-n', '3', '-d', '0.1', '--rows', '100000', '--width', '1000', 'localhost')
    finally:
        started.kill()
        started.wait()
    assert len(tables(out)) == 3
    for table in tables(out):
        assert list(table) == ['localhost']
        assert table['localhost'][started.pid] == 'sleep 1234.5'
        assert any('mitop.py' in text for text in table['localhost'].values())
    assert out.count('1 of 1 hosts') == 3
    assert err == ''


def test_a_process_table_of_several_hosts(config, account):
    out, err = run('mitop.py', '-n', '2', '-d', '0.1', '--rows', '100000', 'localhost', 'one', 'nobody@two', *config)
    for table in tables(out):
        assert sorted(table) == ['localhost', 'one']
        # One machine: both see the process that serves the other.
        assert set(table['one']) & set(table['localhost'])
    assert out.count('2 of 3 hosts') == 2
    # The server lets nobody else in.
    assert err.startswith('nobody@two: ')
    assert err.count('\n') == 1


@pytest.mark.once
def test_busy_processes_come_first():
    busy = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    try:
        # Looked at for long enough that a moment without the processor does not matter.
        out, _ = run('mitop.py', '-n', '2', '-d', '2', '--rows', '1000', 'localhost')
    finally:
        busy.kill()
        busy.wait()
    usage = [float(number) for number in re.findall(r'^localhost +\d+ \S+ +([0-9.]+) ', out.split('\n\n')[1], re.M)]
    assert usage == sorted(usage, reverse=True)
    assert float(re.search(r'^localhost +%d \S+ +([0-9.]+) ' % busy.pid, out.split('\n\n')[1], re.M).group(1)) > 1


def test_a_host_that_is_lost_does_not_end_the_others():
    proc = subprocess.Popen(command('mitop.py', '--plain', '-d', '0.1', '--rows', '100000', 'localhost', 'localhost'),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = iter(proc.stdout.readline, '')
    assert any('2 of 2 hosts' in line for line in lines)
    victim = sshd.children_of(proc.pid)[0]
    os.kill(victim, signal.SIGKILL)
    assert any('1 of 2 hosts' in line for line in lines)
    assert any('localhost: the connection is lost' in line for line in lines)
    # An interrupt is the regular end.
    proc.send_signal(signal.SIGINT)
    _, err = proc.communicate(timeout=60)
    assert proc.returncode == 0
    assert err == 'localhost: the connection is lost\n'


def test_a_process_table_of_no_host():
    out, err = run('mitop.py', 'no host at all', status=1)
    assert out == ''
    assert err.startswith('no host at all: ')


def test_commands_do_nothing_to_the_terminal():
    started = subprocess.Popen(['odd\033[2J\n\a', '1235'], executable=shutil.which('sleep'))
    try:
        out, _ = run('mitop.py', '-n', '1', '--rows', '100000', 'localhost')
    finally:
        started.kill()
        started.wait()
    assert tables(out)[0]['localhost'][started.pid] == 'odd [2J   1235'
    assert '\033' not in out and '\a' not in out


def test_a_process_table_on_a_terminal():
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 100, 0, 0))
    before = termios.tcgetattr(slave)
    proc = subprocess.Popen(command('mitop.py', '-d', '0.1', 'localhost'), stdin=slave, stdout=slave, stderr=slave,
                            env=dict(os.environ, TERM='xterm'), start_new_session=True)
    output = []
    try:
        # Unchanged text is not painted again, so the heading cannot be read from the stream; and
        # where many spaces would be, the cursor moves.
        row = re.compile(rb'localhost(?: +|\x1b\[\d+;\d+H)\d+ ')
        testlib.wait_for(lambda: output.append(drain(master)) or row.search(b''.join(output)), 60)
        os.write(master, b'q')
        testlib.wait_for(lambda: drain(master) and False or proc.poll() is not None, 60)
    finally:
        proc.kill()
    assert proc.wait() == 0
    assert re.search(rb'mitop  [0-9:]+  0 of 1 hosts', b''.join(output))
    assert b'HOST' in b''.join(output)
    assert termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)


def drain(fd):
    """
    Read away what a program has painted, so that it is not held up.
    """
    os.set_blocking(fd, False)
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b''


# ---- install_app

@pytest.fixture
def prefix(tmp_path):
    return str(tmp_path / 'opt' / 'sample')


def test_installing_without_a_host():
    out, _ = run('install_app.py', status=1)
    assert out.startswith('usage: install_app.py')


def test_an_installation_here(prefix, tmp_path):
    out, _ = run('install_app.py', 'localhost', '--prefix', prefix, '--dry-run')
    assert re.findall(r'^would call: (\w+)', out, re.M) == ['make_release', 'fetch', 'unpack', 'switch']
    assert not os.path.exists(os.path.dirname(prefix)), 'a dry run changes nothing'

    out, _ = run('install_app.py', 'localhost', '--prefix', prefix)
    assert out.endswith('installed; %s has: current, sample-1.0\n' % (prefix,))
    assert os.readlink(prefix + '/current') == 'sample-1.0'
    assert os.listdir(prefix + '/current') == ['bin']
    assert subprocess.check_output([prefix + '/current/bin/hello'], text=True).startswith('hello from ')
    out, _ = run('install_app.py', 'localhost', '--prefix', prefix)
    assert 'sample-1.0 is installed already' in out

    # An archive that is none leaves things as they were.
    archive = tmp_path / 'broken-2.0.tar.gz'
    archive.write_bytes(os.urandom(5000))
    out, err = run('install_app.py', 'localhost', '--prefix', prefix, '--archive', str(archive), status=1)
    assert 'cannot unpack' in err
    assert sorted(os.listdir(prefix)) == ['current', 'sample-1.0']
    assert os.readlink(prefix + '/current') == 'sample-1.0'


def test_an_installation_through_a_bastion_and_sudo(config, account):
    folder = os.path.join(account.folder, 'opt')
    os.mkdir(folder)
    games = pwd.getpwnam('games').pw_uid
    os.chown(folder, games, -1)
    accounts.need_program('sudo', 'sudo')
    try:
        with accounts.sudoers('%s ALL=(games) NOPASSWD: ALL\n' % (account.name,)):
            out, _ = run('install_app.py', 'one', '--via', 'bastion', '--sudo', 'games', '--prefix', folder, *config)
        assert re.findall(r'^connected: (.*)$', out, re.M) == [
            'ssh.bastion', 'ssh.bastion.ssh.one', 'ssh.bastion.ssh.one.sudo.games']
        assert ' as games; %s has: nothing' % (folder,) in out
        assert os.stat(folder + '/sample-1.0/bin/hello').st_uid == games
        assert subprocess.check_output([folder + '/current/bin/hello'], text=True, user=games) == 'hello from games\n'
    finally:
        shutil.rmtree(folder)


def test_an_installation_on_a_host_that_is_not_there(prefix):
    out, err = run('install_app.py', 'no host at all', '--prefix', prefix, status=1)
    assert err.startswith('cannot connect: ')
