"""
Targets that fail, or are slow, or talk too much, in each stage of the start and by several
connection methods, and what the exceptions say about it.
"""

import errno
import logging
import os
import re
import shlex
import sys

import pytest

import mitogen.core
import mitogen.parent
import mitogen.sudo
from mitogen.core import Secret, StreamError

import accounts
import places
import pythons
import targets
import testlib

account = accounts.account


STARTED = mitogen.parent.Connection.STAGE_STARTED
SENT = mitogen.parent.Connection.STAGE_SENT


class Target(object):
    """
    A way to start a child, with some interpreter.
    """

    def __init__(self, method, router, account):
        self.method, self.router, self.account = method, router, account
        self.failures = 0
        self.options = {
            'local': {},
            'docker': {'container': 'box', 'docker_path': os.path.join(places.STUBS, 'docker')},
            'kubectl': {'pod': 'box', 'kubectl_path': os.path.join(places.STUBS, 'kubectl')},
            'sudo': {'username': account.name},
            'su': {'username': account.name},
        }[method]

    def connect(self, python, **options):
        options.update(self.options)
        return getattr(self.router, self.method)(python_path=python, **options)

    def fails(self, error, python, **options):
        """
        Return the text of the exception, which says that it is about the next context.
        """
        self.failures += 1
        with pytest.raises(error) as caught:
            self.connect(python, **options)
        text = str(caught.value)
        command = python if isinstance(python, str) else ' '.join(python)
        assert re.search(r'^(Connection timed out after .* seconds\. )?Context %d \(%s.*\): ' % (
            self.failures, self.method), text, re.M)
        assert re.search(r'^Times: starting the process [0-9.]+ s(, |\.$)', text, re.M)
        assert command in re.search('Command was: (.*)', text).group(1)
        return text


@pytest.fixture(params=['local', 'docker', 'kubectl', 'sudo', 'su'])
def target(request, router, account):
    target = Target(request.param, router, account)
    yield target
    if target.failures:
        # The router is none the worse for it. That each method succeeds is seen below, by what is
        # slow or noisy.
        assert router.local().call(targets.identity, 1) == 1


@pytest.fixture
def make_python(account):
    """
    A function that makes a shell script to stand for the interpreter, which every user may run.
    """
    def make(text, name='python-stub'):
        return account.script(name, text.replace('PYTHON', account.python))
    return make


#: The first marker. The first stage repeats its last argument, and so shows that the parent has
#: started it.
SAYS_0 = 'for token; do :; done; echo "MITO000 0 30b07f0 $token"'

#: Reads what the parent answers to the first marker, all of it or a part, byte by byte.
READ = '''PYTHON -c "
import os
def read(n):
    data = b''
    while len(data) < n:
        data += os.read(0, n - len(data))
    return data
size = int(read(9)[1:], 16)
read(min(size, %s))
"
'''


def before_description(text):
    """
    Return what stands before the description of the context, which has what the target printed.
    """
    return re.split(r'\nContext \d+ ', text)[0]


# ---- the end of it

ENDS = [
    (STARTED, 'exit 0', []),
    (STARTED, 'echo out of luck; exit 3', ['out of luck']),
    (STARTED, 'printf MITO00; exit 3', ['MITO00']),
    (STARTED, 'kill -9 $$', []),
    (SENT, SAYS_0 + '; exit 3', []),
    (SENT, SAYS_0 + ';' + READ % 0 + 'exit 3', []),
    (SENT, SAYS_0 + ';' + READ % 2000 + 'exit 3', []),
    (SENT, SAYS_0 + ';' + READ % 'size' + 'echo no memory; exit 3', ['no memory']),
    (SENT, SAYS_0 + ';' + READ % 'size' + 'echo MITO001; exit 3', []),
    (SENT, SAYS_0 + ';' + READ % 'size' + 'printf MITO002; exit 3', ['MITO002']),
]


def test_the_end_of_each_stage(target, make_python):
    for stage, script, says in ENDS:
        print(script)
        text = target.fails(mitogen.parent.EofError, make_python(script))
        assert text.startswith(mitogen.parent.Connection.eof_error_msg)
        assert ': %s.\n' % stage in text or ': %s.\r\n' % stage in text
        for word in says:
            assert word in before_description(text)
        assert '\nHint: the %s' % ('command' if stage is STARTED else 'interpreter') in text


def test_no_python(target):
    error = StreamError if target.method == 'local' else mitogen.parent.EofError
    text = target.fails(error, '/nothing/here/python')
    assert re.search(r'Hint: (/nothing/here/python|a program of the command line) is not there\.', text)
    assert 'python_path' in text


def test_a_program_that_may_not_be_run(target, account):
    path = account.script('closed', 'exit 0\n')
    os.chmod(path, 0o644)
    error = StreamError if target.method == 'local' else mitogen.parent.EofError
    text = target.fails(error, path)
    if target.method == 'sudo':
        # sudo looks for a program that may be run.
        assert path + ': command not found' in text
    else:
        assert 'ermission denied' in text
        assert 'Hint: this user may not run the program' in text


def test_no_terminal(router, account, monkeypatch):
    def none_left():
        raise OSError(errno.ENXIO, 'none left')

    monkeypatch.setattr(os, 'openpty', none_left)
    for method in 'sudo', 'su':
        with pytest.raises(StreamError) as caught:
            getattr(router, method)(username=account.name, python_path=account.python)
        assert caught.value.args[0] == mitogen.parent.OPENPTY_MSG % (OSError(errno.ENXIO, 'none left'),)
        assert '(%s.%s): starting the process.\n' % (method, account.name) in str(caught.value)
        assert 'Command was: %s ' % method in str(caught.value)
    assert router.local().call(targets.identity, 1) == 1


#: An interpreter's steps before the first stage, its output, and the hint.
BROKEN = [
    ('import nothing_of_that_name', 'nothing_of_that_name', 'the interpreter is broken, or older than 2.7.'),
    ('print "x', 'SyntaxError', 'the interpreter is broken, or older than 2.7.'),
    ('raise SystemExit("because")', 'because', 'the command ended before a Python spoke.'),
]


def test_a_broken_python(target, account, make_python):
    for what, word, hint in BROKEN:
        text = target.fails(mitogen.parent.EofError, make_python("exec PYTHON -c '%s' 2>&1\n" % what))
        assert 'Hint: ' + hint in text
        assert word in before_description(text)


def test_a_program_that_is_no_python(target):
    # false does not know the option -c.
    text = target.fails(mitogen.parent.EofError, '/bin/false')
    assert 'Hint: the command ended before a Python spoke.' in text


# ---- time

@pytest.mark.parametrize('stage, text', [
    (STARTED, 'echo so far; '),
    (SENT, 'echo so far; ' + SAYS_0 + '; '),
])
def test_a_deadline_in_each_stage(target, make_python, stage, text):
    # su starts its command in a session of its own, so that only the end of its input reaches it.
    path = make_python(text + ('exec cat >/dev/null' if target.method == 'su' else 'exec sleep 600'))
    with pytest.raises(StreamError) as caught:
        target.connect(path, connect_timeout=0.7)
    assert caught.value.args == ('Connection timed out.',)
    text = str(caught.value)
    assert text.startswith('Connection timed out.\n\nConnection timed out after 0.70 seconds. Context 1 ')
    assert ': %s.\n' % stage in text
    assert 'connect_timeout' in text and '\nHint: ' in text
    assert 'so far' in text
    assert path in text


def test_a_slow_target(target, make_python):
    path = make_python('sleep 0.3; echo login; sleep 0.3; exec PYTHON "$@"\n')
    assert target.connect(path).call(targets.identity, 1) == 1


# ---- noise

@pytest.mark.parametrize('noise', [
    'for i in 1 2 3 4 5 6 7 8 9; do echo "line $i of a banner"; done',
    'echo "Your password: expired"; echo "Permission denied"',
    'printf "no line end: "',
    'printf "\\377\\376\\n\\0\\r\\n\\033[1m"',
    # More than is looked at again and again, with no line end.
    'head -c 300000 /dev/zero',
    'head -c 50000 /dev/zero | tr "\\000" "\\n"',
])
def test_noise_before_the_marker(target, make_python, noise):
    assert target.connect(make_python(noise + '\nexec PYTHON "$@"\n')).call(targets.identity, 1) == 1


@pytest.mark.parametrize('target', ['docker', 'kubectl', 'sudo', 'su'], indirect=True)
@pytest.mark.parametrize('flood', [
    'yes "a line of no interest" | head -c 400000 >&2',
    'head -c 400000 /dev/zero | tr "\\000" x >&2',
])
def test_a_flood_on_stderr(target, make_python, flood):
    assert target.connect(make_python(flood + '\nexec PYTHON "$@"\n')).call(targets.identity, 1) == 1
    text = str(pytest.raises(mitogen.parent.EofError, target.connect, make_python(
        flood + '\necho the last word >&2; exit 1\n')).value)
    assert 'the last word\n' in text or 'the last word\r\n' in text
    assert len(text) < 30000


def test_a_flood_after_the_start_of_a_child(router, account):
    # Its stderr is ours from then on, and what is written there arrives in the log.
    router.limits.log_records_per_second = 1000000
    with testlib.LogCapture() as logs:
        child = router.sudo(username=account.name, python_path=account.python)
        assert child.call(targets.run_shell, 'yes flood | head -c 200000 >&2; echo over >&2') == 0
        logs.wait('over')
    assert child.call(targets.identity, 1) == 1


# ---- what the exceptions say

def test_the_last_hundred_lines(router, make_python):
    path = make_python('i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo "<$i>"; done; exit 1\n')
    with pytest.raises(mitogen.parent.EofError) as caught:
        router.local(python_path=path)
    shown = re.findall('<([0-9]+)>', str(caught.value))
    assert shown == [str(i) for i in range(51, 151)]


def test_how_long_each_stage_took(router, make_python):
    path = make_python('sleep 0.2; ' + SAYS_0 + '; sleep 0.4; exit 1\n')
    with pytest.raises(mitogen.parent.EofError) as caught:
        router.local(python_path=path)
    times = re.search(
        r'^Times: starting the process ([0-9.]+) s, waiting for the interpreter to start ([0-9.]+) s, '
        r'interpreter started, waiting for the child to be ready ([0-9.]+) s\.$', str(caught.value), re.M)
    # Only the sum is sure: on a busy machine the end of one stage is noticed late, and the next
    # stage seems shorter. Each is rounded.
    assert sum(map(float, times.groups())) >= 0.6 - 3 * 0.0005


@pytest.mark.parametrize('version', ['python2.7', 'python3.6', None])
def test_a_failure_beyond_another_context_says_as_much(router, make_python, version):
    middle = router.local(python_path=version and pythons.find_python(version))
    path = make_python('echo "out of l\u00fcck"; exit 3\n')
    with pytest.raises(StreamError) as caught:
        router.local(via=middle, python_path=path, name='far')
    text = str(caught.value)
    assert text.startswith('error occurred on host ')
    for word in (mitogen.parent.Connection.eof_error_msg, u'out of l\u00fcck\n', ' (far): %s.' % STARTED, 'Times: ',
                 'Command was: ' + path):
        assert word in text
    with pytest.raises(StreamError) as caught:
        router.local(via=middle, python_path=make_python('exec sleep 600\n'), connect_timeout=0.5)
    assert re.match(r'error occurred on host [^:]*: Connection timed out\.$', caught.value.args[0])
    assert 'timed out after 0.50 seconds' in str(caught.value)
    with pytest.raises(StreamError) as caught:
        router.sudo(via=middle, sudo_path=asking(make_python))
    assert re.match('error occurred on host [^:]*: sudo password is required$', caught.value.args[0])
    assert 'Context' in str(caught.value) and 'Hint: no password was given' in str(caught.value)


@pytest.mark.parametrize('output, hint', [
    ('Host key verification failed.', 'the key of the host'),
    ('sudo: sorry, you must have a tty to run sudo', 'the tool insists on a terminal'),
    ('sudo: a terminal is required to read the password', 'the tool insists on a terminal'),
    ('ann is not in the sudoers file.', 'the configuration of the tool does not let'),
    ('sudo: unknown user: ann', 'there is no user of that name'),
    ('su: user ann does not exist or the user entry does not contain all the required fields', 'there is no user'),
    ('ssh: Could not resolve hostname h: Name or service not known', 'the name of the host is not known'),
    ('ssh: connect to host h port 22: Connection refused', 'nothing answers there'),
    ('ssh: connect to host h port 22: Connection timed out', 'nothing answers there'),
    ('kex_exchange_identification: read: Connection reset by peer', 'the server ended the connection'),
    ('sudo: 3 incorrect password attempts', 'the password is not right'),
    ('Error response from daemon: No such container: box', 'there is no container of that name'),
    ('Error from server (NotFound): pods "box" not found', 'there is no container of that name'),
    ('Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?', 'the service of the containers'),
    ('This account is currently not available.', 'the account is closed'),
    ('sh: 1: /usr/bin/python: Permission denied', 'this user may not run the program'),
    ('bash: python: command not found', 'a program of the command line is not there'),
    ('env: python: No such file or directory', 'a program of the command line is not there'),
    ('sh: ./python: Exec format error', 'the program is not made for that machine'),
    ('ImportError: No module named zlib', 'the interpreter is broken'),
    ('nothing that anybody knows', 'the command ended before a Python spoke'),
])
def test_hints(router, make_python, output, hint):
    with pytest.raises(mitogen.parent.EofError) as caught:
        router.local(python_path=make_python('echo %s; exit 1\n' % shlex.quote(output)))
    assert '\nHint: ' + hint in str(caught.value)


def test_an_early_end_has_what_was_printed_apart_from_the_rest(router, make_python):
    with pytest.raises(mitogen.parent.EofError) as caught:
        router.local(python_path=make_python('echo out of luck; exit 3\n'))
    assert caught.value.args == (mitogen.parent.Connection.eof_error_msg + 'out of luck',)
    assert caught.value.detail.startswith('Context 1 (local.') and 'Command was: ' in caught.value.detail
    assert str(caught.value) == '%s\n\n%s' % (caught.value.args[0], caught.value.detail)


@pytest.mark.parametrize('via', [False, True])
def test_a_wrong_password_is_not_taken_for_what_sudo_said_before(router, make_python, via):
    sudo = make_python('echo "sudo: unable to resolve host box: Name or service not known" >&2\n'
                       'while printf "%s" "$2" >&2; read line <&2; do echo >&2; done\n', 'sudo-stub')
    options = {'via': router.local()} if via else {}
    with pytest.raises(mitogen.sudo.PasswordError) as caught:
        router.sudo(sudo_path=sudo, password='wrong', **options)
    assert caught.value.args[0].endswith(mitogen.sudo.password_incorrect_msg)
    assert '\nHint: the password is not right' in str(caught.value)
    assert 'unable to resolve host' in str(caught.value)


def test_a_shutdown_says_what_it_interrupts(make_router, make_python):
    router = make_router()
    path = make_python('echo so far; exec sleep 600\n')
    with testlib.LogCapture('mitogen.parent') as logs:
        error, _ = testlib.in_threads([
            lambda: router.local(python_path=path), lambda: (logs.wait('so far'), router.broker.shutdown())])
    assert type(error) is mitogen.parent.CancelledError
    assert error.args == (mitogen.parent.BROKER_SHUTDOWN_MSG,)
    assert str(error).startswith(mitogen.parent.BROKER_SHUTDOWN_MSG + '\n\nContext 1 (local.')
    assert 'so far' in str(error) and path in str(error)


def test_a_container_that_is_not_found_has_a_context(router):
    with pytest.raises(StreamError) as caught:
        router.setns(container='box', kind='docker', docker_path='false')
    assert str(caught.value).endswith('\n\nContext 1 (setns.box): looking for the container.\n' + str(
        caught.value).rpartition('\n')[2])
    assert 'Command was: false inspect' in caught.value.args[0]


def test_a_connection_that_cannot_describe_itself_fails_all_the_same(router, make_python):
    class Odd(mitogen.parent.Connection):
        def _get_name(self):
            raise ZeroDivisionError('no name')

    with pytest.raises(StreamError) as caught:
        router._connect(Odd, python_path='/nothing/here')
    assert str(caught.value).startswith('Child start failed: ')


@pytest.mark.parametrize('method', ['get_boot_command', 'start_child', 'stream_factory', '_get_name', 'get_econtext_config'])
def test_what_a_method_of_an_own_connection_raises(router, method):
    class Odd(mitogen.parent.Connection):
        pass

    def fail(self):
        raise ZeroDivisionError('on purpose')

    setattr(Odd, method, fail)
    with pytest.raises(ZeroDivisionError):
        router._connect(Odd)
    assert router.local().call(targets.identity, 1) == 1


# ---- passwords

PASSWORD = 'hunter2-\u00fc'


def asking(make_python, then='exit 1', name='asking'):
    """
    Return a sudo that asks for the password on its terminal, and shows there what it was told.
    """
    return make_python(
        'printf %%s "$2" >&2\nread answer <&2\n'
        'printf %%s "$answer" >&2; echo >&2; echo "wrong: $answer, $answer" >&2\n'
        '%s\n' % then, name)


@pytest.fixture
def all_logs():
    """
    All that is logged at the most verbose level, with all that records hold.
    """
    old = [(name, logging.getLogger(name).level) for name in ('mitogen', 'mitogen.io')]
    for name, _ in old:
        logging.getLogger(name).setLevel(logging.DEBUG)
    with testlib.LogCapture('') as logs:
        yield logs
    for name, level in old:
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize('version', ['python2.7', None])
@pytest.mark.parametrize('far', [False, True])
@pytest.mark.parametrize('then', ['exit 1', 'exec sleep 600', 'printf %s "$2" >&2; exec sleep 600'])
def test_a_password_that_is_shown_again(router, make_python, all_logs, far, version, then):
    options = {'sudo_path': asking(make_python, then), 'password': PASSWORD, 'connect_timeout': 2}
    if far:
        options['via'] = router.local(python_path=version and pythons.find_python(version))
    elif version:
        options['password'] = PASSWORD.encode('utf-8')
    with pytest.raises(StreamError) as caught:
        router.sudo(**options)
    text = '%s %r %r' % (caught.value, caught.value, vars(caught.value))
    assert '********\n' in str(caught.value) and 'wrong: ********, ********' in str(caught.value)
    assert 'password typed, ' + STARTED in text
    assert 'hunter' not in text
    assert not [r for r in all_logs.records if 'hunter' in '%s %r' % (r.getMessage(), vars(r))]
    assert all_logs.find('typing the password')
    assert all_logs.find('wrong: ********')


@pytest.mark.parametrize('method, extra', [('ssh', {'hostname': 'h'}), ('su', {}), ('sudo', {}), ('doas', {})])
def test_options_do_not_show_a_password(method, extra):
    klass = mitogen.parent.get_connection_class(method)
    for password in PASSWORD, Secret(PASSWORD), PASSWORD.encode('utf-8'):
        options = klass.options_class(max_message_size=1, password=password, **extra)
        conn = klass(options, None)
        shown = '%r %r %r %r %s' % (options, vars(options), conn, vars(conn), conn.get_boot_command())
        assert 'hunter' not in shown
        assert repr(options.password) == '[secret]'


def test_the_password_is_in_no_argument_of_any_process(router, account):
    rules = 'Defaults:{0} timestamp_timeout=0\n{0} ALL=(root) ALL\n'.format(account.name)
    sudo = account.as_user(accounts.need_program('sudo', 'sudo'))
    with accounts.sudoers(rules):
        child = router.sudo(sudo_path=sudo, password=account.password, python_path=sys.executable)
    for name in os.listdir('/proc'):
        if name.isdigit():
            for kind in 'cmdline', 'environ':
                try:
                    with open('/proc/%s/%s' % (name, kind), 'rb') as fp:
                        assert account.password.encode() not in fp.read()
                except (IOError, OSError):
                    pass
    assert account.password.encode() not in child.call(targets.command_line)
