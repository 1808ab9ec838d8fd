"""
Names that come from others never become options of the programs that they are given to, nor
commands of a shell.
"""

import os
import string
import subprocess
import sys

import pytest

import mitogen.buildah
import mitogen.core
import mitogen.doas
import mitogen.docker
import mitogen.fakessh
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
from mitogen.core import CallError, StreamError
from mitogen.parent import Argv

import accounts
import targets

#: Each name that a program is given as a word: the method, the option, and others that it needs.
NAMES = [
    ('ssh', 'hostname', {}), ('ssh', 'username', {'hostname': 'h'}),
    ('su', 'username', {}), ('sudo', 'username', {}), ('doas', 'username', {}),
    ('sudo', 'selinux_role', {}), ('sudo', 'selinux_type', {}),
    ('docker', 'container', {}), ('docker', 'image', {}), ('docker', 'username', {'container': 'c'}),
    ('podman', 'container', {}), ('podman', 'username', {'container': 'c'}),
    ('srun', 'jobid', {}), ('srun', 'node', {}), ('srun', 'partition', {}),
    ('buildah', 'container', {}), ('buildah', 'username', {'container': 'c'}),
    ('kubectl', 'pod', {}), ('lxc', 'container', {}), ('lxd', 'container', {}), ('incus', 'container', {}),
    ('jail', 'container', {}), ('jail', 'username', {'container': 'c'}),
    ('setns', 'container', {'kind': 'docker'}), ('setns', 'container', {'kind': 'lxc'}),
    ('setns', 'container', {'kind': 'lxd'}), ('setns', 'container', {'kind': 'machinectl'}),
    ('setns', 'username', {'kind': 'docker', 'container': 'c'}),
]


# ---- what begins with a dash

@pytest.mark.parametrize('value', [u'-x', b'-oProxyCommand=true', '--', '-'])
@pytest.mark.parametrize('method, name, options', NAMES)
def test_a_name_that_begins_with_a_dash_is_refused(router, method, name, options, value):
    with pytest.raises(ValueError) as caught:
        getattr(router, method)(**dict(options, **{name: value}))
    # The option, the value, and what to do.
    assert str(caught.value).startswith('%s=%r begins with a dash' % (name, value))
    assert 'alias' in str(caught.value)


@pytest.mark.parametrize('value', ['-x', ['-x', 'python'], ('-x',)])
@pytest.mark.parametrize('method', ['local', 'ssh', 'sudo', 'docker'])
def test_an_interpreter_that_begins_with_a_dash_is_refused(router, method, value):
    options = {'ssh': {'hostname': 'h'}, 'docker': {'container': 'c'}}.get(method, {})
    with pytest.raises(ValueError) as caught:
        getattr(router, method)(python_path=value, **options)
    assert 'python_path=' in str(caught.value)


def test_names_with_a_dash_elsewhere_are_fine():
    for method, name, options in NAMES:
        module = getattr(mitogen, method)
        made = module.Options(max_message_size=1, **dict(options, **{name: 'web-1'}))
        assert getattr(made, name) == 'web-1'


def test_a_user_in_the_flags_of_sudo_is_looked_at_too(router):
    with pytest.raises(ValueError):
        router.sudo(sudo_args=['-u', '-x'])


def test_the_real_ssh_runs_no_command_that_a_host_name_holds(router, tmp_path):
    accounts.need_program('ssh', 'openssh-client')
    path = tmp_path / 'made'
    with pytest.raises(ValueError):
        router.ssh(hostname='-oProxyCommand=touch %s' % path, python_path='x')
    assert not path.exists()


def test_the_real_ssh_runs_no_command_that_an_interpreter_holds(router, tmp_path):
    # The client looks for options behind the host, too.
    accounts.need_program('ssh', 'openssh-client')
    path = tmp_path / 'made'
    with pytest.raises(ValueError):
        router.ssh(hostname='127.0.0.1', port=1, python_path=['-oProxyCommand=touch %s' % path, 'x'])
    # Words of the list that come later do not start it either.
    with pytest.raises(StreamError):
        router.ssh(hostname='127.0.0.1', port=1, python_path=['env', '-oProxyCommand=touch %s' % path, 'x'])
    assert not path.exists()


def test_the_real_su_runs_no_shell_that_a_user_name_holds(router, tmp_path):
    accounts.need_program('su', 'util-linux')
    path = tmp_path / 'shell'
    path.write_text('#!/bin/sh\ntouch %s/made\n' % (tmp_path,))
    path.chmod(0o755)
    with pytest.raises(ValueError):
        router.su(username='-s%s' % (path,))
    assert not (tmp_path / 'made').exists()


def test_a_name_is_refused_where_the_program_would_run(router):
    with pytest.raises(CallError) as caught:
        router.ssh(via=router.local(), hostname='-oProxyCommand=true')
    assert 'begins with a dash' in str(caught.value)


@pytest.mark.parametrize('method, name, options', [
    ('ssh', 'hostname', {}), ('podman', 'container', {}), ('buildah', 'container', {}),
    ('sudo', 'python_path', {}), ('doas', 'python_path', {}), ('lxc', 'python_path', {'container': 'c'}),
    ('kubectl', 'python_path', {'pod': 'p'}), ('lxd', 'python_path', {'container': 'c'}),
    ('incus', 'python_path', {'container': 'c'}),
])
def test_options_end_where_names_begin(method, name, options):
    module = getattr(mitogen, method)
    options = dict({'python_path': 'PYTHON'}, **dict(options, **{name: 'NAME'}))
    command = module.Connection(module.Options(max_message_size=1, **options), None).get_boot_command()
    assert command[command.index('NAME') - 1] == '--'


# ---- what a shell reads

WORDS = [char for char in string.printable] + ['a%sb' % (char,) for char in string.printable] + [
    '', 'a b', "it's", '$(touch made)', '`touch made`', '${HOME}', '~', '~root', '*', '[a-z]', '{a,b}', '#x', 'a\\nb',
    '!!', "!'!",
    '\\', '\\\\', '"', "'\"'\"'", 'if', '-n', '>made', u'\xe4\u20ac', 'a=b', '$HOME!',
]


def test_a_shell_reads_each_word_as_it_is(tmp_path):
    # printf is given them all at once; a zero ends each.
    line = "printf '%s\\0' " + str(Argv(WORDS))
    for shell in '/bin/sh', '/bin/bash':
        if os.path.exists(shell):
            out = subprocess.check_output([shell, '-c', line], cwd=str(tmp_path))
            assert out.decode('utf-8').split('\0')[:-1] == WORDS
    assert os.listdir(str(tmp_path)) == []


def test_words_that_need_no_quotes_have_none():
    words = ['/usr/bin/python3', '-c', 'user@host:12345', '1.0.0.dev0', 'a_b=c,d', '10%', '+x']
    assert str(Argv(words)) == ' '.join(words)


def test_su_hands_its_shell_words_and_no_commands(router, tmp_path):
    path = tmp_path / 'su'
    path.write_text('#!/bin/sh\nexec sh -c "$3"\n')
    path.chmod(0o755)
    value = ";'&()|<>\t!\"$(false)\\`*? x"
    child = router.su(su_path=str(path), python_path=['/usr/bin/env', 'MITOGEN_ODD=' + value, sys.executable])
    assert child.call(targets.environ, 'MITOGEN_ODD') == value


def test_a_command_before_the_interpreter_is_left_to_the_shell(router, tmp_path):
    path = tmp_path / 'su'
    path.write_text('#!/bin/sh\nexec sh -c "$3"\n')
    path.chmod(0o755)
    (tmp_path / 'env').write_text('export MITOGEN_SOURCED=yes\n')
    child = router.su(su_path=str(path), python_path=['.', str(tmp_path / 'env'), '&&', sys.executable])
    assert child.call(targets.environ, 'MITOGEN_SOURCED') == 'yes'
    options = mitogen.setns.Options(
        max_message_size=1, container='c', kind='lxc', python_path=['.', '/a b', '&&', 'python'])
    command = mitogen.setns.Connection(options, None).get_boot_command()
    assert command[2].startswith('. "/a b" && python -c ')


# ---- an application that is its own interpreter

@pytest.fixture
def frozen(monkeypatch):
    monkeypatch.setattr(sys, 'frozen', True, raising=False)
    monkeypatch.setattr(subprocess, 'Popen', lambda *args, **kwargs: pytest.fail('it was started'))


@pytest.mark.parametrize('method, options', [('local', {}), ('sudo', {}), ('su', {}), ('docker', {'container': 'c'})])
def test_a_frozen_application_does_not_start_itself(router, frozen, method, options):
    with pytest.raises(StreamError) as caught:
        getattr(router, method)(**options)
    assert 'frozen' in str(caught.value) and 'python_path' in str(caught.value)
    assert sys.executable in str(caught.value)


def test_a_frozen_application_does_not_take_itself_for_an_interpreter_of_fakessh(router, frozen):
    with pytest.raises(StreamError) as caught:
        mitogen.fakessh.run(mitogen.parent.Context(router, 0), router, ['true'])
    assert 'python_path' in str(caught.value)


def test_a_frozen_application_starts_children_by_another_interpreter(router, monkeypatch):
    monkeypatch.setattr(sys, 'frozen', True, raising=False)
    child = router.local(python_path=['/usr/bin/env', sys.executable])
    assert child.call(targets.identity, 1) == 1
    # A copy needs none.
    assert router.fork().call(targets.identity, 1) == 1
