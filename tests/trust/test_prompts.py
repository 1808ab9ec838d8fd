"""
While a child starts, the parent answers the prompt of the tool that it runs, once and before the
tool has run anything, and the markers of its own first stage and child. A banner, or a login
script, that says the same words gets nothing.
"""

import os
import sys

import pytest

import mitogen.core
import mitogen.doas
import mitogen.parent
import mitogen.ssh
import mitogen.su
import mitogen.sudo
from mitogen.core import StreamError

import accounts
import targets
import testlib

account = accounts.account

BANNER = 'echo MITO000; echo MITO000 1 30b07f0; echo MITO000 0 30b07f0 0123456789abcdef; echo MITO001; echo MITO002'


#: Reads the answer of a parent, and writes it to its output, as it is and with "MITO002" before it.
ECHOES = """
import sys
size = sys.stdin.read(9)
data = sys.stdin.read(int(size[1:], 16))
print(size + data)
print('MITO002 ' + data)
"""


@pytest.fixture
def make_tool(tmp_path):
    """
    A function that makes a shell script and returns its path.
    """
    def make(text):
        path = tmp_path / 'tool'
        path.write_text('#!/bin/sh\n' + text)
        path.chmod(0o755)
        return str(path)
    return make


def typed(logs):
    return len([r for r in logs.records if 'typing the password' in r.getMessage()])


# ---- markers

@pytest.mark.parametrize('text', [
    BANNER, 'echo MITO002',
    # With what can be read on the command line, which is all but what goes to the child.
    'for token; do :; done; echo "MITO000 1 30b07f0 $token"; echo "MITO002 $token"; echo "MITO002 $*"',
])
def test_a_banner_of_markers_is_no_child(router, make_tool, text):
    with pytest.raises(mitogen.parent.EofError) as caught:
        router.local(python_path=make_tool(text + '; exec >&- 2>&-; exit 3\n'))
    assert 'MITO002' in str(caught.value)


def test_an_echo_of_what_the_child_is_told_is_no_child(router, make_tool):
    # All of it, as a terminal would show it.
    path = make_tool('for token; do :; done; echo "MITO000 1 30b07f0 $token"; %s -c "%s"\n' % (sys.executable, ECHOES))
    with pytest.raises(mitogen.parent.EofError) as caught:
        router.local(python_path=path)
    assert "'marker': " in str(caught.value)


@pytest.mark.parametrize('line_end', ['', '; printf "MITO002 "'])
def test_a_child_behind_a_banner_of_markers(router, make_tool, line_end):
    path = make_tool('%s%s\nexec %s "$@"\n' % (BANNER, line_end, sys.executable))
    with testlib.LogCapture('mitogen') as logs:
        child = router.local(python_path=path)
    assert child.call(targets.identity, 1) == 1
    # The banner was taken for output.
    assert logs.find('stdout: MITO002')


def test_markers_are_never_the_same(router):
    def tokens():
        options = mitogen.parent.Options(max_message_size=1 << 20)
        conn = mitogen.parent.Connection(options, router)
        return conn.get_boot_command()[-1], conn._ready_nonce

    seen = sum([tokens() for _ in range(10)], ())
    assert len(set(seen)) == 20
    assert set(map(len, seen)) == {16}


def test_a_forked_child_says_its_own_marker(router):
    child = router.fork()
    assert child.call(targets.identity, 1) == 1


# ---- the prompt of sudo

def test_the_prompt_that_everybody_knows_is_not_answered(router, make_tool):
    path = make_tool('printf mitogen-sudo-prompt: >&2; while [ "$1" != -- ]; do shift; done; shift; exec "$@"\n')
    with testlib.LogCapture('mitogen') as logs:
        child = router.sudo(sudo_path=path, password='hunter2', python_path=sys.executable)
        assert child.call(targets.identity, 1) == 1
        assert typed(logs) == 0


def test_a_login_script_that_prints_the_known_prompt_gets_nothing(router, account):
    # The real sudo. Root is not asked, so the script is the first that could have an answer.
    accounts.need_program('sudo', 'sudo')
    profile = os.path.join(account.home, '.profile')
    with open(profile, 'w') as fp:
        fp.write('printf mitogen-sudo-prompt: >/dev/tty; printf "[sudo: mitogen-sudo-prompt:] Password: " >&2\n')
    try:
        with testlib.LogCapture('mitogen') as logs:
            child = router.sudo(username=account.name, login=True, password='hunter2', python_path=account.python)
            assert child.call(os.getuid) == account.uid
            assert typed(logs) == 0
    finally:
        os.unlink(profile)


def test_each_connection_has_a_prompt_of_its_own():
    def prompt():
        command = mitogen.sudo.Connection(mitogen.sudo.Options(max_message_size=1), None).get_boot_command()
        return command[command.index('-p') + 1]

    prompts = set(prompt() for _ in range(10))
    assert len(prompts) == 10
    assert not [text for text in prompts if '%' in text]


def test_the_prompt_of_one_connection_is_nothing_to_another(router, make_tool):
    path = make_tool(
        'printf mitogen-sudo-prompt-0123456789abcdef: >&2\nprintf "$2 " >&2\nprintf "$2" >&2; read -r answer <&2\n'
        'printf "\\n$2" >&2; exec sleep 600\n')
    with testlib.LogCapture('mitogen') as logs, pytest.raises(mitogen.sudo.PasswordError) as caught:
        router.sudo(sudo_path=path, password='hunter2')
    assert caught.value.args[0] == mitogen.sudo.password_incorrect_msg
    assert typed(logs) == 1


# ---- at the right stage only

#: The prompt of each tool, and the options of its connection.
ASKED = {
    'ssh': (b"user@host's password: ", {'hostname': 'h'}),
    'sudo': (None, {}),
    'su': (b'Password: ', {}),
    'doas': (b'doas (user@host) password: ', {}),
}


@pytest.fixture(params=sorted(ASKED))
def asked(request, router, monkeypatch):
    """
    A connection whose tool is given words by the test; `typed` has what was answered.
    """
    module = getattr(mitogen, request.param)
    prompt, options = ASKED[request.param]
    conn = module.Connection(module.Options(max_message_size=1, password='hunter2', **options), router)
    conn.stdio_stream = conn.stream_factory()
    stream = conn.stdio_stream if request.param == 'su' else conn.stderr_stream_factory()
    stream.conn, stream.name = conn, u'tool'
    conn.says = lambda data: stream.protocol.on_receive(router.broker, data)
    conn.prompt = prompt or conn._prompt.encode()
    conn.typed = []
    conn.failures = []
    conn._pending = True
    conn._enter_stage(conn.STAGE_STARTED)
    monkeypatch.setattr(stream.protocol, 'type_line', conn.typed.append)
    monkeypatch.setattr(conn, '_fail_connection', conn.failures.append)
    return conn


def test_a_prompt_is_answered_before_the_first_stage_runs(asked):
    asked.says(asked.prompt)
    assert asked.typed == [u'hunter2']


def test_a_prompt_after_the_first_stage_has_spoken_is_nobodys(asked):
    asked._enter_stage(asked.STAGE_SENT)
    asked.says(asked.prompt)
    asked.says(b'\n' + asked.prompt)
    assert (asked.typed, asked.failures) == ([], [])


def test_a_password_is_typed_once_and_not_again_at_a_later_stage(asked):
    asked.says(asked.prompt)
    asked.says(b'\n')
    asked._enter_stage(asked.STAGE_SENT)
    asked.says(asked.prompt)
    assert (asked.typed, asked.failures) == ([u'hunter2'], [])


def test_a_program_that_asks_behind_the_first_stage_of_su_gets_nothing(router, make_tool):
    path = make_tool('printf Password:; read -r answer\necho "MITO000 0 30b07f0 ${3##* }"\nprintf Password:; exit 3\n')
    with testlib.LogCapture('mitogen') as logs, pytest.raises(mitogen.parent.EofError):
        router.su(su_path=path, password='hunter2')
    assert typed(logs) == 1


def test_the_host_key_question_is_answered_before_the_first_stage_only(router, monkeypatch):
    conn = mitogen.ssh.Connection(mitogen.ssh.Options(
        max_message_size=1, hostname='h', check_host_keys='accept'), router)
    stream = conn.stderr_stream_factory()
    stream.conn, conn._pending = conn, True
    monkeypatch.setattr(stream.protocol, 'type_line', lambda text: pytest.fail(text))
    conn._enter_stage(conn.STAGE_SENT)
    stream.protocol.on_receive(router.broker, b'Are you sure you want to continue connecting (yes/no)? ')
