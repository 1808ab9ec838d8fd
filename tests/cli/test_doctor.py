"""
``mitogen doctor``: the stages of the way to a host.
"""

import socket

import pytest

import mitogen.command
import mitogen.core


@pytest.fixture
def doctor(capsys):
    def run(*args):
        status = mitogen.command.main(['doctor'] + list(args))
        found = {}
        for line in capsys.readouterr().out.splitlines():
            if line.startswith('  '):
                stage, _, text = line.strip().partition(' ')
                found[stage] = text.strip()
        return status, found
    return run


@pytest.fixture
def ssh_program(tmp_path, monkeypatch):
    """
    Make an ssh client that says where it would go.
    """
    def make(text):
        path = tmp_path / 'ssh'
        path.write_text('#!/bin/sh\n' + text)
        path.chmod(0o755)
        monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    return make


def test_a_host_that_is_well(doctor):
    status, found = doctor('local:')
    assert status == 0
    assert list(found)[:4] == ['target', 'connected', 'python', 'user']
    assert found['python'].split(' core')[0].endswith(mitogen.core.CORE)
    assert 'ms' in found['round'] and 'MB/s' in found['rate'] and found['clock'].startswith('as here')


def test_an_interpreter_that_is_not_there(doctor):
    status, found = doctor('local:/no/such/python', 'local:')
    assert status == 255
    assert 'after: ' in found['FAILED'] and '--python' in found['remedy']
    assert found['connected']


@pytest.mark.once
def test_a_name_that_has_no_address(doctor):
    status, found = doctor('no-such-host.invalid')
    assert status == 255 and found['ssh_config'].startswith(tuple('abcdefghijklmnopqrstuvwxyz?'))
    assert 'no address for no-such-host.invalid' in found['FAILED'] and '/etc/hosts' in found['remedy']


@pytest.mark.once
def test_a_port_that_nobody_listens_on(doctor):
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = sock.getsockname()[1]
        status, found = doctor('ssh://127.0.0.1:%d' % (port,))
    assert status == 255 and found['address'].startswith('127.0.0.1')
    assert 'refused' in found['FAILED'].lower() and 'firewall' in found['remedy']


@pytest.mark.once
def test_a_client_that_does_not_like_its_configuration(doctor, ssh_program):
    ssh_program('echo "x: Bad configuration option" >&2; exit 255\n')
    status, found = doctor('web1')
    assert status == 255 and 'Bad configuration option' in found['FAILED'] and found['remedy'] == 'see ssh_config'


@pytest.mark.once
def test_a_way_by_another_host_is_left_to_ssh(doctor, ssh_program):
    ssh_program('case "$1" in -G) echo "hostname no-such-host.invalid"; echo "proxyjump bastion";; '
                '*) echo "bastion: Permission denied (publickey)." >&2; exit 255;; esac\n')
    status, found = doctor('web1')
    assert status == 255 and found['proxyjump'].startswith('bastion') and 'address' not in found
    assert 'by hand' in found['remedy'] and 'Permission denied' in found['it']
