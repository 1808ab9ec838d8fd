"""
Command lines, options, and how prompts are recognised and answered, for each connection method,
without starting anything.
"""

import re
import socket

import pytest

import mitogen.buildah
import mitogen.core
import mitogen.doas
import mitogen.docker
import mitogen.incus
import mitogen.jail
import mitogen.kubectl
import mitogen.lxc
import mitogen.lxd
import mitogen.parent
import mitogen.podman
import mitogen.setns
import mitogen.srun
import mitogen.ssh
import mitogen.su
import mitogen.sudo
from mitogen.core import Secret, StreamError

import testlib

METHODS = dict((name, getattr(mitogen, name)) for name in (
    'buildah', 'doas', 'docker', 'incus', 'jail', 'kubectl', 'lxc', 'lxd', 'podman', 'setns', 'srun', 'ssh', 'su',
    'sudo'))


def connection(method, **options):
    module = METHODS[method]
    options.setdefault('python_path', 'PYTHON')
    return module.Connection(module.Options(max_message_size=123, **options), router=None)


def prefix(method, **options):
    """
    Return the command line up to the interpreter.
    """
    command = connection(method, **options).get_boot_command()
    return command[:command.index('PYTHON')]


# ---- containers

@pytest.mark.parametrize('method, options, expected', [
    ('docker', {'container': 'c'}, 'docker exec --interactive c'),
    ('docker', {'image': 'i'}, 'docker run --interactive --rm i'),
    ('docker', {'container': 'c', 'image': 'i', 'username': 'u'}, 'docker exec --interactive --user=u c'),
    ('docker', {'image': 'i', 'username': 'u', 'docker_path': '/d'}, '/d run --interactive --user=u --rm i'),
    ('podman', {'container': 'c'}, 'podman exec --interactive -- c'),
    ('podman', {'container': 'c', 'username': 'u', 'podman_path': '/p'}, '/p exec --user=u --interactive -- c'),
    ('buildah', {'container': 'c'}, 'buildah run -- c'),
    ('buildah', {'container': 'c', 'username': 'u', 'buildah_path': '/b'}, '/b run --user=u -- c'),
    ('kubectl', {'pod': 'p'}, 'kubectl exec -it p --'),
    ('kubectl', {'pod': 'p', 'kubectl_path': '/k', 'kubectl_args': ['-n', 's']}, '/k -n s exec -it p --'),
    ('lxc', {'container': 'c'}, 'lxc-attach --clear-env --name c --'),
    ('lxc', {'container': 'c', 'lxc_attach_path': '/l'}, '/l --clear-env --name c --'),
    ('lxd', {'container': 'c'}, 'lxc exec --mode=noninteractive c --'),
    ('lxd', {'container': 'c', 'lxc_path': '/l'}, '/l exec --mode=noninteractive c --'),
    ('incus', {'container': 'c'}, 'incus exec --mode=non-interactive c --'),
    ('incus', {'container': 'c', 'incus_path': '/i'}, '/i exec --mode=non-interactive c --'),
    ('jail', {'container': 'c'}, '/usr/sbin/jexec c'),
    ('jail', {'container': 'c', 'username': 'u', 'jexec_path': '/j'}, '/j -U u c'),
    ('srun', {'jobid': 7, 'node': 'n', 'srun_path': '/s', 'srun_args': ['--mem=1G']},
     '/s --ntasks=1 --nodes=1 --unbuffered --overlap --jobid=7 --nodelist=n --mem=1G'),
    ('srun', {'partition': 'p'}, 'srun --ntasks=1 --nodes=1 --unbuffered --partition=p'),
])
def test_the_command_line_of_a_container(method, options, expected, monkeypatch):
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    assert prefix(method, **options) == expected.split()


@pytest.mark.parametrize('method', sorted(METHODS))
def test_a_method_takes_the_keywords_of_ansible_and_none_for_the_default(method):
    words = {
        'ssh': 'check_host_keys=enforce hostname=h username compression password port identity_file '
               'identities_only ssh_path ssh_args ssh_debug_level keepalive_count=3 keepalive_interval=15',
        'su': 'username password su_path', 'sudo': 'username password sudo_path sudo_args',
        'doas': 'username password doas_path', 'docker': 'username container=c', 'podman': 'username container=c',
        'buildah': 'username container=c', 'jail': 'username container=c',
        'kubectl': 'pod=p kubectl_path kubectl_args', 'lxc': 'container=c lxc_attach_path',
        'lxd': 'container=c lxc_path', 'incus': 'container=c incus_path',
        'setns': 'container=c username kind=docker docker_path lxc_path lxc_info_path machinectl_path',
        'srun': 'jobid node partition srun_path srun_args',
    }
    options = dict(word.split('=') if '=' in word else (word, None) for word in words[method].split())
    given = connection(method, connect_timeout=None, remote_name=None, unidirectional=True, **options)
    assert all(isinstance(word, str) for word in given.get_boot_command())
    assert given.options.connect_timeout == 30.0


@pytest.mark.parametrize('method', sorted(METHODS))
def test_an_unknown_keyword_is_a_type_error(method):
    with pytest.raises(TypeError):
        connection(method, bogus=1, **{
            'ssh': {'hostname': 'h'}, 'kubectl': {'pod': 'p'}, 'setns': {'container': 'c', 'kind': 'lxc'},
            'su': {}, 'sudo': {}, 'doas': {}, 'srun': {},
        }.get(method, {'container': 'c'}))


@pytest.mark.parametrize('method', ['ssh', 'lxd', 'incus', 'setns'])
def test_some_look_for_python_in_the_path(method):
    assert METHODS[method].Options.python_path == 'python'


def test_the_others_take_our_own_python():
    for method in set(METHODS) - set(['ssh', 'lxd', 'incus', 'setns']):
        assert METHODS[method].Options.python_path == mitogen.parent.get_sys_executable()


def test_docker_needs_a_container_or_an_image():
    with pytest.raises(AssertionError):
        connection('docker')


def test_kubectl_needs_a_pod():
    with pytest.raises(AssertionError):
        connection('kubectl', pod='')


@pytest.mark.parametrize('method, options, expected', [
    ('docker', {'container': 'c'}, u'docker.c'),
    ('docker', {'image': 'i'}, u'docker.i'),
    ('podman', {'container': 'c'}, u'podman.c'),
    ('buildah', {'container': 'c'}, u'buildah.c'),
    ('kubectl', {'pod': 'p'}, u'kubectl.p[]'),
    ('srun', {}, u'srun.new'),
    ('srun', {'jobid': 7}, u'srun.7'),
    ('srun', {'jobid': u'7', 'node': 'n'}, u'srun.7/n'),
    ('kubectl', {'pod': 'p', 'kubectl_args': ['-n', 's']}, u"kubectl.p['-n', 's']"),
    ('lxc', {'container': 'c'}, u'lxc.c'),
    ('lxd', {'container': 'c'}, u'lxd.c'),
    ('incus', {'container': 'c'}, u'incus.c'),
    ('jail', {'container': 'c'}, u'jail.c'),
    ('setns', {'container': 'c', 'kind': 'lxc'}, u'setns.c'),
    ('sudo', {}, u'sudo.root'),
    ('su', {'username': 'u'}, u'su.u'),
    ('doas', {'username': 'u'}, u'doas.u'),
    ('ssh', {'hostname': 'h'}, u'ssh.h'),
    ('ssh', {'hostname': 'h', 'port': 22}, u'ssh.h'),
    ('ssh', {'hostname': 'h', 'port': '22'}, u'ssh.h'),
    ('ssh', {'hostname': 'h', 'port': 2222}, u'ssh.h:2222'),
])
def test_the_default_name(method, options, expected):
    assert connection(method, **options)._get_name() == expected


def test_what_ends_when_the_process_ends():
    for method, module in METHODS.items():
        assert module.Connection.child_is_immediate_subprocess is (method == 'kubectl')


# ---- ssh

def settings(command):
    return [value for key, value in zip(command, command[1:]) if key == '-o']


def test_ssh_by_default():
    assert prefix('ssh', hostname='h') == [
        'ssh', '-o', 'LogLevel ERROR', '-o', 'Compression yes',
        '-o', 'ServerAliveInterval 15', '-o', 'ServerAliveCountMax 3', '-o', 'BatchMode yes',
        '-o', 'StrictHostKeyChecking yes', '--', 'h',
    ]


def test_ssh_with_everything():
    assert prefix(
        'ssh', hostname='h', username='u', ssh_path='/s', port=23, check_host_keys='accept', password='p',
        identity_file='/k', ssh_args=['-a', '-b'], keepalive_count=4, keepalive_interval=5, ssh_debug_level=2,
    ) == [
        '/s', '-vv', '-l', 'u', '-p', '23', '-o', 'IdentitiesOnly yes', '-i', '/k', '-o', 'Compression yes',
        '-o', 'ServerAliveInterval 5', '-o', 'ServerAliveCountMax 4', '-o', 'StrictHostKeyChecking ask',
        '-a', '-b', '--', 'h',
    ]


def test_ssh_without_what_can_be_switched_off():
    assert prefix(
        'ssh', hostname='h', compression=False, keepalive_enabled=False, identities_only=False, identity_file='/k',
    ) == ['ssh', '-o', 'LogLevel ERROR', '-i', '/k', '-o', 'BatchMode yes', '-o', 'StrictHostKeyChecking yes', '--', 'h']


def test_ssh_that_ignores_host_keys():
    assert settings(prefix('ssh', hostname='h', check_host_keys='ignore'))[-3:] == [
        'StrictHostKeyChecking no', 'UserKnownHostsFile /dev/null', 'GlobalKnownHostsFile /dev/null']


def test_a_debug_level_has_an_upper_end():
    assert prefix('ssh', hostname='h', ssh_debug_level=9)[1] == '-vvv'


def test_a_bad_way_to_check_host_keys():
    with pytest.raises(ValueError) as caught:
        connection('ssh', hostname='h', check_host_keys='maybe')
    assert str(caught.value) == mitogen.ssh.Options.check_host_keys_msg


def test_ssh_makes_a_terminal_only_for_questions():
    def creator(**options):
        made = connection('ssh', hostname='h', **options)
        return made.create_child, made.create_child_args

    plain = (mitogen.parent.create_child, {'stderr_pipe': True})
    terminal = (mitogen.parent.hybrid_tty_create_child, {})
    assert creator() == creator(check_host_keys='ignore') == plain
    assert creator(check_host_keys='accept') == creator(password='') == creator(password='p') == terminal


def test_each_word_is_quoted_for_the_remote_shell():
    words = ['source', "/a b/it's", '&&', '$X', 'python']
    command = connection('ssh', hostname='h', python_path=words).get_boot_command()
    start = command.index('h') + 1
    assert command[start:start + 5] == ['source', "'/a b/it'\\''s'", '&&', "'$X'", 'python']
    assert command[start + 6].startswith("'import ")
    assert command[start + 7] == mitogen.parent._get_first_stage_blob()


def test_the_ssh_command_line_is_short():
    command = connection('ssh', hostname='h', python_path=None).get_boot_command()
    assert len(' '.join(command)) < 1400


# ---- sudo

def test_sudo_by_default():
    command = prefix('sudo')
    assert re.match('mitogen-sudo-prompt-[0-9a-f]{16}:$', command.pop(2))
    assert command == ['sudo', '-p', '-u', 'root', '--']


def test_sudo_with_everything():
    command = prefix(
        'sudo', username='u', sudo_path='/s', preserve_env=True, set_home=True, login=True, selinux_role='r',
        selinux_type='t', password='p')
    assert command[:2] + command[3:] == ['/s', '-p', '-u', 'u', '-E', '-H', '-i', '-r', 'r', '-t', 't', '--']


def test_sudo_args_are_parsed():
    assert prefix('sudo', sudo_args=['--type', 'setype', '--role', 'serole', '--user', 'user'])[3:] == [
        '-u', 'user', '-r', 'serole', '-t', 'setype', '--']
    assert prefix('sudo', sudo_args=['-EHn', '-S', '-uuser', '--login'])[3:] == ['-u', 'user', '-E', '-H', '-i', '--']


def test_arguments_win_over_sudo_args():
    assert prefix('sudo', sudo_args=['-E', '-H', '-u', 'other'], username='u', preserve_env=False)[3:] == [
        '-u', 'u', '-H', '--']


def test_what_is_parsed():
    flags = mitogen.sudo.parse_sudo_flags(['--user=u', '-E', '--', ])
    assert (flags.username, flags.preserve_env) == ('u', True)
    assert (flags.set_home, flags.login, flags.selinux_role, flags.selinux_type) == (None, None, None, None)


@pytest.mark.parametrize('args, text', [
    (['--derps'], 'sudo: no such option: --derps'),
    (['-Ex'], 'sudo: no such option: -x'),
    (['-u'], 'sudo: '),
    (['--role'], 'sudo: '),
    (['--login=x'], 'sudo: '),
])
def test_bad_sudo_args(args, text):
    with pytest.raises(StreamError) as caught:
        connection('sudo', sudo_args=args)
    assert str(caught.value).startswith(text)


def test_help_of_sudo():
    for flag in '-h', '--help':
        with pytest.raises(StreamError):
            connection('sudo', sudo_args=[flag])


def test_words_that_are_left_over():
    with pytest.raises(StreamError) as caught:
        connection('sudo', sudo_args=['-H', 'true', 'false'])
    assert 'true false' in str(caught.value)


def test_sudo_cannot_run_a_builtin_of_the_shell():
    command = connection('sudo', python_path=['source', '/env', '&&', '/usr/bin/python', '-B']).get_boot_command()
    assert command[5:9] == ['--', '/usr/bin/python', '-B', '-c']


@pytest.mark.parametrize('data', [
    b'mitogen-sudo-prompt:',
    b'lecture\nmitogen-sudo-prompt:',
    b'[sudo: mitogen-sudo-prompt:] Password: ',
    b'[sudo: mitogen-sudo-prompt:] Mot de passe : ',
    u'[sudo: mitogen-sudo-prompt:] Mot de passe\u00a0: '.encode('utf-8'),
    u'[sudo: mitogen-sudo-prompt:] \u5bc6\u7801\uff1a'.encode('utf-8'),
    u'[sudo: mitogen-sudo-prompt:] \u5bc6\u7801\uff1a'.encode('gb18030'),
])
def test_a_sudo_prompt(data):
    assert mitogen.sudo.PASSWORD_PROMPT_RE.search(data)


@pytest.mark.parametrize('data', [
    b'',
    b'Password:',
    b'mitogen-sudo-prompt:\n',
    b'mitogen-sudo-prompt:*',
    b'mitogen-sudo-prompt:x',
    b'[sudo: mitogen-sudo-prompt:] Password: \n',
    b'[sudo: mitogen-sudo-prompt:] Password: *',
    b'[sudo: mitogen-sudo-prompt:] Password: ****',
    b'[sudo: mitogen-sudo-prompt:] ' + b'x' * 51,
])
def test_no_sudo_prompt(data):
    assert not mitogen.sudo.PASSWORD_PROMPT_RE.search(data)


# ---- su, doas, setns

def test_su_runs_one_shell_command():
    command = connection('su', username='u', su_path='/s').get_boot_command()
    assert command[:3] == ['/s', 'u', '-c']
    assert command[3].startswith('PYTHON -c "import ')
    assert len(command) == 4


def test_doas():
    assert prefix('doas', username='someuser', doas_path='/d') == ['/d', '-u', 'someuser', '--']
    assert prefix('doas') == ['doas', '-u', 'root', '--']


def test_setns_keeps_a_shell_around_the_interpreter():
    command = connection('setns', container='c', kind='lxc').get_boot_command()
    assert command[:2] == ['/bin/sh', '-c']
    assert command[2].startswith('PYTHON -c "import ')
    assert command[2].endswith('; exit $?')


# ---- passwords

@pytest.mark.parametrize('method', ['ssh', 'sudo', 'su', 'doas'])
@pytest.mark.parametrize('password', [u'hunter2', Secret(u'hunter2'), b'hunter2'])
def test_a_password_is_nowhere_to_be_seen(method, password):
    made = connection(method, password=password, **({'hostname': 'h'} if method == 'ssh' else {}))
    assert made.options.password == u'hunter2'
    assert 'hunter2' not in repr(vars(made.options))
    assert 'hunter2' not in ' '.join(made.get_boot_command())
    assert 'hunter2' not in repr(made)


class FakeConnection(object):
    STAGE_STARTED = mitogen.parent.Connection.STAGE_STARTED
    STAGE_ANSWERED = mitogen.parent.Connection.STAGE_ANSWERED
    _stage = STAGE_STARTED

    def __init__(self, options):
        self.options = options
        self.stages = []
        self.failures = []
        self._pending = True
        self._router = self
        self.broker = None

    def _enter_stage(self, stage):
        self.stages.append(stage)

    def _fail_connection(self, error):
        self.failures.append(error)
        self._pending = False


class Tool(object):
    """
    The tool's end of the stream that it asks on.
    """

    def __init__(self, method, **options):
        made = connection(method, **options)
        if method == 'su':
            made._router = FakeConnection(None)
            self.stream = made.stream_factory()
        else:
            self.stream = made.stderr_stream_factory()
        self.stream.name = u'tool'
        #: The prompt of the tool.
        self.prompt = made._prompt.encode() if method == 'sudo' else PROMPTS[method]
        self.stream.conn = self.conn = FakeConnection(made.options)
        self.sock, ours = socket.socketpair()
        self.stream.accept(ours, ours)
        self.sock.settimeout(60)

    def says(self, data, slowly=False):
        for chunk in ([data[i:i + 1] for i in range(len(data))] if slowly else [data]):
            self.stream.protocol.on_receive(None, chunk)

    def hears(self):
        """
        Return all that was typed since the last time.
        """
        self.sock.setblocking(False)
        try:
            return self.sock.recv(4096)
        except (IOError, OSError):
            return b''

    @property
    def failures(self):
        return [(type(error), str(error)) for error in self.conn.failures]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()
        self.stream.receive_side.close()
        self.stream.transmit_side.close()


PROMPTS = {
    'ssh': b"user@host's password: ",
    'sudo': None,   # another one each time
    'su': b'Password: ',
    'doas': b'\rdoas (user@host) password: ',
}


def tool(method, **options):
    if method == 'ssh':
        options['hostname'] = 'h'
    return Tool(method, **options)


@pytest.mark.parametrize('method', sorted(PROMPTS))
@pytest.mark.parametrize('slowly', [False, True])
def test_a_prompt_is_answered_once(method, slowly):
    with tool(method, password=u'p\xe4ss') as asked:
        asked.says(asked.prompt, slowly)
        assert asked.hears() == u'p\xe4ss\n'.encode('utf-8')
        assert asked.conn.stages == [asked.conn.STAGE_ANSWERED]
        asked.says(b'\r\n')
        assert asked.hears() == b''
        assert asked.failures == []


@pytest.mark.parametrize('method', ['sudo', 'su', 'doas'])
def test_a_second_prompt_means_that_the_password_is_wrong(method):
    with tool(method, password='p') as asked:
        asked.says(asked.prompt, slowly=True)
        asked.says(b'\r\nSorry.\r\n')
        asked.says(asked.prompt)
        assert asked.hears() == b'p\n'
        module = METHODS[method]
        assert asked.failures == [(module.PasswordError, '%s password is incorrect' % method)]
        assert module.password_incorrect_msg == '%s password is incorrect' % method


@pytest.mark.parametrize('method', sorted(PROMPTS))
def test_a_prompt_and_no_password(method):
    with tool(method) as asked:
        asked.says(asked.prompt)
        module = METHODS[method]
        assert asked.failures == [(module.PasswordError, module.password_required_msg)]
        assert asked.hears() == b''


@pytest.mark.parametrize('method', ['sudo', 'su', 'doas'])
def test_the_text_about_a_missing_password(method):
    assert METHODS[method].password_required_msg == '%s password is required' % method


def test_a_password_is_not_logged():
    for method in PROMPTS:
        with testlib.LogCapture('mitogen') as logs, tool(method, password='hunter2') as asked:
            asked.says(asked.prompt)
            assert asked.hears() == b'hunter2\n'
        assert logs.records
        assert not logs.find('hunter2')


def test_nothing_is_typed_once_the_child_is_ready():
    with tool('ssh', password='p') as asked:
        asked.conn._pending = False
        asked.says(b'your password will expire')
        assert asked.hears() == b''
        assert asked.conn.stages == []


@pytest.mark.parametrize('line', [
    b'su: Authentication failure', b'su: incorrect password', b'su: Sorry', b'4-001 Authentication is denied.'])
def test_su_says_no(line):
    with tool('su', password='p') as asked:
        asked.says(b'Password: ')
        asked.says(b'\r\n' + line + b'\r\n', slowly=True)
        assert asked.failures == [(mitogen.su.PasswordError, 'su password is incorrect')]


def test_su_says_no_before_it_asks():
    with tool('su') as asked:
        asked.says(b'su: ')
        asked.says(b'incorrect password\n')
        assert asked.failures == [(mitogen.su.PasswordError, 'su password is incorrect')]


@pytest.mark.parametrize('line', [b'doas: Authentication failed', b'doas: authorization failed'])
def test_doas_says_no(line):
    with tool('doas', password='p') as asked:
        asked.says(line + b'\n')
        assert asked.failures == []
        asked.says(b'Password: ')
        asked.says(b'\r\n' + line + b'\r\n')
        assert asked.failures == [(mitogen.doas.PasswordError, 'doas password is incorrect')]


@pytest.mark.parametrize('method', ['su', 'doas'])
def test_other_texts_to_look_for(method):
    options = {'password': 'p', 'password_prompt': u'(Wort?)', 'incorrect_prompts': [u'F\xe4lsch.']}
    with tool(method, **options) as asked:
        asked.says(b'Password: \n')
        assert asked.hears() == b''
        asked.says(b'(wort?) ')
        assert asked.hears() == b'p\n'
        asked.says(u'\nf\xe4lsch!\nalles f\xe4lsch.\n'.encode('utf-8'))
        assert len(asked.failures) == 1


# ---- what ssh says

YES_NO = (
    b"The authenticity of host '[127.0.0.1]:22 ([127.0.0.1]:22)' can't be established.\r\n"
    b'ED25519 key fingerprint is SHA256:abc.\r\n'
    b'Are you sure you want to continue connecting (yes/no%s)? '
)


@pytest.mark.parametrize('variant', [b'', b'/[fingerprint]'])
@pytest.mark.parametrize('slowly', [False, True])
def test_ssh_asks_about_a_host_key(variant, slowly):
    with tool('ssh', check_host_keys='accept') as asked:
        asked.says(YES_NO % variant, slowly)
        assert asked.hears() == b'yes\n'
        assert asked.failures == []


@pytest.mark.parametrize('slowly', [False, True])
def test_ssh_asks_for_the_password_on_the_line_of_the_host_key(slowly):
    with tool('ssh', check_host_keys='accept', password='p') as asked:
        asked.says(YES_NO % b'', slowly)
        asked.says(asked.prompt, slowly)
        assert asked.hears() == b'yes\np\n'


def test_ssh_asks_about_a_host_key_although_it_may_not():
    with tool('ssh', check_host_keys='ignore') as asked:
        asked.says(YES_NO % b'')
        assert asked.failures == [(mitogen.ssh.HostKeyError, mitogen.ssh.hostkey_config_msg)]
        assert asked.hears() == b''


def test_ssh_does_not_like_a_host_key():
    with tool('ssh') as asked:
        asked.says(b'Host key verification failed.\r\n')
        assert asked.failures == [(mitogen.ssh.HostKeyError, mitogen.ssh.hostkey_failed_msg)]


@pytest.mark.parametrize('line, password, expected', [
    (b'Permission denied (publickey,password).', None, mitogen.ssh.password_required_msg),
    (b'chicken@x: permission denied (publickey,password)', None, mitogen.ssh.password_required_msg),
    (b'chicken@password.example: permission denied (publickey)', None, mitogen.ssh.auth_incorrect_msg),
    (b'chicken@x: Permission denied (publickey).', None, mitogen.ssh.auth_incorrect_msg),
    (b'Permission denied (publickey).', 'p', mitogen.ssh.auth_incorrect_msg),
])
@pytest.mark.parametrize('slowly', [False, True])
def test_ssh_is_denied(line, password, expected, slowly):
    with tool('ssh', password=password) as asked:
        asked.says(line, slowly)
        assert asked.failures == []
        assert asked.hears() == b''
        asked.says(b'\r\n')
        assert asked.failures == [(mitogen.ssh.PasswordError, expected)]


def test_ssh_is_denied_after_the_password():
    with tool('ssh', password='p') as asked:
        asked.says(asked.prompt)
        asked.says(b'\r\nPermission denied, please try again.\r\n')
        assert asked.failures == [(mitogen.ssh.PasswordError, mitogen.ssh.password_incorrect_msg)]


def test_ssh_asks_on_behalf_of_two_hosts():
    with tool('ssh', password='p') as asked:
        asked.says(b"user@jump's password: ")
        asked.says(b'\r\n')
        asked.says(b"user@host's password: ")
        assert asked.hears() == b'p\np\n'
        assert asked.failures == []


@pytest.mark.parametrize('first, second', [
    (b"user@host's password: ", b"user@host's password: "),
    (b'(user@host) Password: ', b'(user@host) Password: '),
    (b'(ann@corp@host) Password: ', b"ann@corp@host's password: "),
    (b'Password: ', b'Password: '),
    (b'Password: ', b"user@host's password: "),
    # These prompts ask for a new password.
    (b"user@host's password: ", b'(current) UNIX password: '),
    (b'(user@host) Password: ', b'New password: '),
])
@pytest.mark.parametrize('slowly', [False, True])
def test_ssh_asks_again(first, second, slowly):
    with tool('ssh', password='p') as asked:
        asked.says(first, slowly)
        asked.says(b'\r\n')
        asked.says(second, slowly)
        assert asked.hears() == b'p\n'
        assert asked.failures == [(mitogen.ssh.PasswordError, mitogen.ssh.password_incorrect_msg)]


@pytest.mark.parametrize('first, second', [
    (b"user@jump's password: ", b"user@host's password: "),
    (b'(user@jump) Password: ', b'(user@host) Password: '),
    (b"user@jump's password: ", b"other@jump's password: "),
])
def test_ssh_asks_for_somebody_else(first, second):
    with tool('ssh', password='p') as asked:
        asked.says(first, slowly=True)
        asked.says(b'\r\n')
        asked.says(second, slowly=True)
        assert asked.hears() == b'p\np\n'
        assert asked.failures == []


def test_a_login_shell_is_denied_something():
    with tool('ssh') as asked:
        asked.says(b"Could not chdir to home directory /root: Permission denied\r\n")
        assert asked.failures == []


def test_ssh_speaks_of_passwords_in_its_debug_log():
    with testlib.LogCapture('mitogen.ssh') as logs, tool('ssh', ssh_debug_level=3, password='p') as asked:
        asked.says(b'debug1: Next authentication method: password', slowly=True)
        assert asked.hears() == b''
        asked.says(b'\r\ndebug3: fin \xc3\xa9\r\n')
        assert asked.failures == []
    assert [r.getMessage() for r in logs.records if r.name == 'mitogen.ssh'] == [
        u'tool: debug1: Next authentication method: password', u'tool: debug3: fin \xe9']


def test_the_texts_that_programs_compare():
    assert mitogen.ssh.auth_incorrect_msg == 'SSH authentication is incorrect'
    assert mitogen.ssh.password_incorrect_msg == 'SSH password is incorrect'
    assert mitogen.ssh.password_required_msg == 'SSH password was requested, but none specified'


# ---- setns

def test_an_unknown_kind_of_container():
    with pytest.raises(mitogen.setns.Error):
        connection('setns', container='c', kind='zzz')


@pytest.mark.parametrize('output, key, expected', [
    (u'123\n', None, 123),
    (u'0\n', None, None),
    (u'123 4\n', None, None),
    (u'x\n', None, None),
    (u'', None, None),
    (u'Name: c\nState: RUNNING\nPID:            123\nCPU use: 0.1\n', u'pid:', 123),
    (u'Name: c\nPid: 123\n', u'pid:', 123),
    (u'c(0123)\n  Since: today\n  Leader: 123 (systemd)\n', u'leader:', 123),
    (u'Name: c\n', u'pid:', None),
    (u'PID:\n', u'pid:', None),
])
def test_where_the_process_id_is(output, key, expected):
    assert mitogen.setns._find_pid(output, key) == expected
