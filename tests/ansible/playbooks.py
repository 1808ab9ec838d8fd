"""
Playbooks over a real ssh server: the server, its users, and runs whose results can be compared.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

import accounts
import ansible_env
import testlib
from sshd import free_ports, make_key

HERE = os.path.dirname(os.path.abspath(__file__))

#: Whether there is time for everything: as often, as large and on as many hosts as there is.
ALL = bool(os.environ.get('MITOGEN_TEST_ANSIBLE_ALL'))

CONFIG = '''
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized
AllowUsers {users}
PidFile none
StrictModes no
UsePAM no
UseDNS no
AcceptEnv TMPDIR
PasswordAuthentication yes
KbdInteractiveAuthentication no
MaxSessions 100
MaxStartups 100
Subsystem sftp internal-sftp
'''

ANSIBLE_CFG = '''
[defaults]
inventory = {folder}/hosts.json
library = {here}/library
module_utils = {here}/module_utils
callback_plugins = {here}/plugins/callback
callbacks_enabled = record
retry_files_enabled = false
interpreter_python = {python}
timeout = 30
forks = 5
home = {folder}/ansible
local_tmp = {folder}/ansible/tmp
remote_tmp = {target}/tmp-$USER
deprecation_warnings = false
localhost_warning = false

[connection]
pipelining = true

[ssh_connection]
ssh_args = -F /dev/null -o IdentityAgent=none -o UserKnownHostsFile={known} -o GlobalKnownHostsFile=/dev/null \
-o ControlMaster=auto -o ControlPersist=60s -o SetEnv=TMPDIR={there}
control_path_dir = {folder}/cp
'''


class Server(object):
    """
    An ssh server that lets some users in by one key, until `close`.
    """

    def __init__(self, folder, users):
        self.folder = folder
        for name in 'host_key', 'user_key':
            make_key(self.path(name))
        os.rename(self.path('user_key.pub'), self.path('authorized'))
        if not os.path.isdir('/run/sshd'):
            os.mkdir('/run/sshd', 0o755)
        sshd = accounts.need_program('sshd', 'openssh-server')
        for _ in range(5):
            # Somebody else may take a port before the server does.
            self.port, self.closed_port = free_ports(2)
            with open(self.path('config'), 'w') as fp:
                fp.write(CONFIG.format(folder=folder, port=self.port, users=' '.join(users)))
            with open(self.path('log'), 'wb') as log:
                self.proc = subprocess.Popen([sshd, '-D', '-e', '-f', self.path('config')], stderr=log)
            testlib.wait_for(lambda: 'Server listening' in self.log() or self.proc.poll() is not None)
            if self.proc.poll() is None:
                break
        else:
            pytest.fail('sshd does not start: ' + self.log())
        with open(self.path('host_key.pub')) as fp:
            key = ' '.join(fp.read().split()[:2])
        with open(self.path('known'), 'w') as fp:
            fp.write('[127.0.0.1]:%d %s\n' % (self.port, key))

    def path(self, name):
        return os.path.join(self.folder, name)

    def log(self):
        with open(self.path('log')) as fp:
            return fp.read()

    def close(self):
        self.proc.terminate()
        self.proc.wait()


class Site(object):
    """
    Two users on a server, and what is needed to run playbooks there.
    """

    def __init__(self, env, stack):
        self.env = env
        self.users = []
        for _ in range(2):
            account = accounts.Account()
            stack.callback(account.close)
            self.users.append(account)
        # Short, as sockets have their names below it.
        self.folder = tempfile.mkdtemp(prefix=accounts.PREFIX)
        stack.callback(shutil.rmtree, self.folder)
        os.chmod(self.folder, 0o755)
        self.server = Server(self.make_folder('ssh'), [user.name for user in self.users])
        stack.callback(self.server.close)
        stack.enter_context(accounts.sudoers(
            'Defaults:{0} timestamp_timeout=0\nDefaults>games requiretty\n{0} ALL=(ALL) ALL\n'.format(self.users[0].name)))
        self.full = self.make_folder('full')
        stack.enter_context(full_disk(self.full))
        self.source = self.make_folder('source')
        make_sources(self.source)

    def make_folder(self, *names):
        path = os.path.join(self.folder, *names)
        os.makedirs(path)
        return path

    def inventory(self):
        hosts = {}
        for name, user, port in [
            ('one', self.users[0], self.server.port),
            ('two', self.users[1], self.server.port),
            ('gone', self.users[1], self.server.closed_port),
        ]:
            hosts[name] = {
                'ansible_host': '127.0.0.1',
                'ansible_port': port,
                'ansible_user': user.name,
                'ansible_become_password': user.password,
                'ansible_ssh_private_key_file': self.server.path('user_key'),
            }
        # By its password alone.
        hosts['typed'] = dict(
            hosts['two'], ansible_password=self.users[1].password, ansible_ssh_common_args='-o PubkeyAuthentication=no')
        del hosts['typed']['ansible_ssh_private_key_file']
        hosts['localhost'] = {'ansible_connection': 'local', 'ansible_python_interpreter': sys.executable}
        return {'all': {'hosts': hosts}}


def make_unknown_ansible(env, folder):
    """
    Make a copy of the environment's ansible-core below a folder: a release from the future, which
    starts modules in another way. Return its version.
    """
    source, target = os.path.join(env.packages, 'ansible'), os.path.join(folder, 'ansible')
    changed = {'release.py': (r'(?m)^__version__ = .*$', "__version__ = '2.99.1'")}
    for path in 'executor/module_common.py', '_internal/_ansiballz/_wrapper.py':
        changed[path] = '_ansiballz_main', '_ansiballz_begin'

    def link(path):
        os.mkdir(os.path.join(target, path))
        for name in os.listdir(os.path.join(source, path)):
            name = os.path.join(path, name)
            if name in changed:
                with open(os.path.join(source, name)) as fp:
                    text = re.sub(*changed[name], fp.read())
                with open(os.path.join(target, name), 'w') as fp:
                    fp.write(text)
            elif any(known.startswith(name + '/') for known in changed):
                link(name)
            elif not name.endswith('__pycache__'):
                os.symlink(os.path.join(source, name), os.path.join(target, name))

    link('')
    return '2.99.1'


@contextlib.contextmanager
def full_disk(folder):
    """
    Have a folder that anybody may write to, on a disk without room.
    """
    accounts.run('mount', '-t', 'tmpfs', '-o', 'size=16k,mode=1777', 'none', folder)
    try:
        with contextlib.suppress(OSError), open(os.path.join(folder, 'filler'), 'wb', buffering=0) as fp:
            while True:
                fp.write(b'x' * 4096)
        yield
    finally:
        accounts.run('umount', folder)


def make_sources(folder):
    """
    Make the files that are sent to targets, the same in each run.
    """
    chance = random.Random(1)
    os.makedirs(os.path.join(folder, 'tree', 'below'))
    for name, size in [
        ('small', 1024), ('medium', 126976), ('large', (20 if ALL else 4) << 20), ('tree/a', 10), ('tree/below/b', 200000),
    ]:
        with open(os.path.join(folder, name), 'wb') as fp:
            fp.write(chance.randbytes(size))
        os.chmod(os.path.join(folder, name), 0o644)


class Run(object):
    """
    One ansible-playbook.
    """

    #: Begins the command line.
    program = ()

    def __init__(self, site, name, way='plain', core=None, **environ):
        self.site = site
        self.folder = site.make_folder(name)
        self.tmp = site.make_folder(name, 'tmp')
        # Where files go on targets. Each run finds the same state there.
        self.target = os.path.join(self.folder, 'target')
        os.mkdir(self.target)
        os.chmod(self.target, 0o1777)
        # Temporary files of modules on targets, unless another user runs them.
        self.there = os.path.join(self.folder, 'there')
        os.mkdir(self.there)
        os.chmod(self.there, 0o1777)
        self.fetched = os.path.join(self.folder, 'fetched')
        with open(os.path.join(self.folder, 'hosts.json'), 'w') as fp:
            json.dump(site.inventory(), fp)
        self.config = os.path.join(self.folder, 'ansible.cfg')
        with open(self.config, 'w') as fp:
            fp.write(ANSIBLE_CFG.format(
                folder=self.folder, target=self.target, there=self.there, here=HERE, python=site.users[0].python,
                known=site.server.path('known')))
        self.record = os.path.join(self.folder, 'record')
        self.environ = dict(
            (name, value) for name, value in os.environ.items()
            if not name.startswith(('ANSIBLE_', 'MITOGEN_', 'PYTHON', 'SSH_', 'XDG_')) or name == 'MITOGEN_TEST_MARK'
        )
        self.environ.update(
            ANSIBLE_CONFIG=self.config, RECORD_TO=self.record, TMPDIR=self.tmp, HOME=self.folder, LC_ALL='C.UTF-8',
            PATH=accounts.PATH)
        self.environ.update(environ)
        if core is not None:
            self.environ['MITOGEN_CORE'] = core
        getattr(self, 'be_' + way)()

    # Ways to run.

    def be_plain(self):
        """Ansible as it is."""

    def be_upstream(self):
        """The strategy of upstream's `ansible_mitogen`, on whatever package the environment has."""
        folder = self.site.env.upstream
        self.environ.update(
            PYTHONPATH=folder, ANSIBLE_STRATEGY='mitogen_linear',
            ANSIBLE_STRATEGY_PLUGINS=os.path.join(folder, 'ansible_mitogen', 'plugins', 'strategy'))

    def be_command(self):
        """Ours, by the program `mitogen`."""
        self.program = self.site.env.path('bin', 'python'), '-m', 'mitogen.command', 'ansible-playbook'

    def be_path(self):
        """Ours, by a line in the configuration."""
        self.environ['ANSIBLE_CONNECTION_PLUGINS'] = os.path.join(
            self.site.env.packages, 'mitogen', 'ansible', 'plugins', 'connection')

    def be_strategy(self):
        """Ours, by the configuration that is written for upstream's."""
        self.environ.update(
            ANSIBLE_STRATEGY='mitogen_linear', ANSIBLE_STRATEGY_PLUGINS=os.path.join(
                self.site.env.packages, 'ansible_mitogen', 'plugins', 'strategy'))

    def be_collection(self):
        """Ours, by the name of a connection plugin in the inventory."""
        hosts = self.site.inventory()
        for name, variables in hosts['all']['hosts'].items():
            variables['ansible_connection'] = 'mitogen.fast.' + ('local' if name == 'localhost' else 'ssh')
        with open(os.path.join(self.folder, 'hosts.json'), 'w') as fp:
            json.dump(hosts, fp)

    def start(self, playbook, *args, **variables):
        variables.update(
            folder=self.target, source=self.site.source, full=self.site.full, fetched=self.fetched, other=self.site.users[1].name)
        self.output = open(os.path.join(self.folder, 'output'), 'w')
        self.proc = subprocess.Popen(
            list(self.program or [self.site.env.playbook]) + [os.path.join(HERE, playbook)] + list(args) + ['-e', json.dumps(variables)],
            env=self.environ, cwd=HERE, stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT,
            start_new_session=True)
        return self

    def wait(self):
        """
        Wait for the end, and end what Ansible leaves on purpose. Return the exit status.
        """
        status = self.proc.wait()
        self.output.close()
        self.end_masters()
        return status

    def end_masters(self):
        """
        End the connections that ssh keeps for a while.
        """
        folder = os.path.join(self.folder, 'cp')
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            subprocess.call(['ssh', '-F', '/dev/null', '-O', 'exit', '-o', 'ControlPath=' + os.path.join(folder, name),
                             'any'], stderr=subprocess.DEVNULL)

    def kill(self):
        """
        End it with no time for a farewell.
        """
        self.proc.kill()
        self.proc.wait()
        self.output.close()
        self.end_masters()

    def interrupt(self):
        """
        Do as a terminal does for Ctrl-C.
        """
        os.killpg(self.proc.pid, signal.SIGINT)
        return self.wait()

    def printed(self):
        with open(self.output.name) as fp:
            return fp.read()

    def records(self):
        with contextlib.suppress(FileNotFoundError), open(self.record) as fp:
            return [json.loads(line) for line in fp]
        return []

    def one_record(self, event):
        records = [record for record in self.records() if record['event'] == event]
        assert len(records) == 1, self.printed()
        return records[0]

    def results(self, words=True):
        """
        Return what is comparable with other runs: {(task, host): [(event, result), ...]}.

        :param bool words: compare the words of failures, too.
        """
        found = {}
        for record in self.records():
            if 'task' in record:
                result = record['result']
                if record['task'] in (() if words else OTHER_WORDS):
                    result = dict((key, result[key]) for key in ('failed', 'unreachable', 'changed') if key in result)
                item = record['event'], comparable(result, self.folder)
                found.setdefault('%(task)s, on %(host)s' % record, []).append(item)
        return found

    def left(self):
        """
        Return the temporary files of modules that are still there.
        """
        return os.listdir(self.there)

    def sockets(self):
        """
        Return the sockets of upstream's, and the folders of Ansible's that have ours.
        """
        folder = os.path.join(self.folder, 'ansible', 'tmp')
        return [name for _, _, names in os.walk(self.tmp) for name in names if name.startswith('mitogen_unix')] + [
            name for name in (os.listdir(folder) if os.path.isdir(folder) else ()) if name.startswith('ansible-local-')]


#: Tasks whose failure upstream's describes in words of its own.
OTHER_WORDS = ('ping', 'a module that crashes', 'with a wrong password', 'as nobody that exists')

#: Keys that differ from run to run, or that `ansible_mitogen` itself adds or leaves out.
PASSING = frozenset([
    'start', 'end', 'delta', 'atime', 'ctime', 'mtime', 'inode', 'version', 'attempts', 'ansible_job_id',
    'results_file', 'data', 'child_pid', 'elapsed', 'invocation', 'warnings', 'deprecations',
])

#: Keys of a folder's `stat` that differ when another process makes something in it, as in a home.
PASSING_OF_FOLDERS = frozenset(['nlink', 'size', 'blocks'])

if os.environ.get('MITOGEN_TEST_ANSIBLE_CORE', '').startswith('2.22'):
    # From the second item of a loop on, its own ssh plugin has another name there, for which it
    # finds no variables.
    PASSING |= {'_ansible_delegated_vars'}

#: Facts that may change between two looks at a machine.
PASSING_FACTS = re.compile(
    'ansible_(date_time|env|interfaces|mem.*|swap.*|mounts|uptime_seconds|loadavg|virtualization_.*|all_ipv._addresses|'
    'devices|device_links)$')

TEMPORARY = re.compile(
    r'^[^ ]*/(ansible-tmp-[\w.-]+|ansible_mitogen_action_\w+)/|/[^ ]*_payload\w*/[^ ]*_payload.zip|key=\w+|'
    r'BECOME-SUCCESS-\w+|/ansible-local-\w+/tmp\w+|ansible-tmp-[\w.-]+|(?:/[\w.-]+)*/\.ansible_async/j\d+\.\d+|'
    # How much `dd` reads at a time depends on the sender.
    r'[\d.e-]+ s, [\d.]+ [kM]?B/s|\d\+\d records in')


#: Until 2.19, Ansible has ssh tell as much as it tells itself.
TOLD_BY_SSH = re.compile(r'^(?:debug[123]: |OpenSSH_\d)[^\n]*\n', re.M)

#: A frame of a traceback that is not the module's own, but that of whatever runs it.
FRAME = re.compile(r'^  File "(?![^"]*/ansible/modules/)[^"]*", line \d+, in [^\n]*\n(?:    [^\n]*\n)*', re.M)


def comparable(value, folder):
    if isinstance(value, dict):
        changed = {}
        facts = value.get('ansible_facts', {})
        names = facts.get('ansible_interfaces', ())
        for key, item in value.items():
            if key in PASSING or PASSING_FACTS.match(key):
                continue
            if key in PASSING_OF_FOLDERS and value.get('isdir'):
                continue
            if key in ('started', 'finished'):
                # Of an asynchronous task that was just started; 0 and 1 with one of the two.
                item = bool(item)
            if key == 'ansible_facts':
                item = dict((name, facts[name]) for name in facts if name[len('ansible_'):] not in names)
            if key == '_ansible_delegated_vars':
                # The inventory has our names: see `be_collection`. The plain one has none for ssh.
                item = dict((name, 'local' if each == 'mitogen.fast.local' else each)
                            for name, each in item.items() if each != 'mitogen.fast.ssh')
            changed[key] = comparable(item, folder)
        if 'ansible_env' in value:
            changed['ansible_env'] = sorted(value['ansible_env'])
        return changed
    if isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            value = TOLD_BY_SSH.sub('', FRAME.sub('', '\n'.join(value) + '\n')).split('\n')[:-1]
        return [comparable(item, folder) for item in value]
    if isinstance(value, str):
        return TEMPORARY.sub('/TEMPORARY/', TOLD_BY_SSH.sub('', FRAME.sub('', value)).replace(folder, 'FOLDER'))
    return value
