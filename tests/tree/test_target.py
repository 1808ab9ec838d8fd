"""
Targets are text: which methods of connection they name, with which options.
"""

import pytest

from mitogen._tree.target import parse, TargetError

pytestmark = pytest.mark.once


@pytest.mark.parametrize('target,hops', [
    ('local:', [('local', {})]),
    ('local:/usr/bin/python3', [('local', {'python_path': '/usr/bin/python3'})]),
    ('web1', [('ssh', {'hostname': 'web1'})]),
    ('web1:2222', [('ssh', {'hostname': 'web1', 'port': 2222})]),
    ('deploy@web1.example.com', [('ssh', {'hostname': 'web1.example.com', 'username': 'deploy'})]),
    ('ssh://deploy@web1:22/', [('ssh', {'hostname': 'web1', 'username': 'deploy', 'port': 22})]),
    ('ssh://[::1]:22', [('ssh', {'hostname': '::1', 'port': 22})]),
    ('ssh://local:22', [('ssh', {'hostname': 'local', 'port': 22})]),
    ('sudo:', [('sudo', {})]),
    ('su:postgres', [('su', {'username': 'postgres'})]),
    ('doas:bob', [('doas', {'username': 'bob'})]),
    ('docker:web', [('docker', {'container': 'web'})]),
    ('docker:www@web', [('docker', {'container': 'web', 'username': 'www'})]),
    ('podman:web', [('podman', {'container': 'web'})]),
    ('lxc:web', [('lxc', {'container': 'web'})]),
    ('k8s:web-0', [('kubectl', {'pod': 'web-0'})]),
    ('k8s:prod/web-0', [('kubectl', {'pod': 'web-0', 'kubectl_args': ['--namespace', 'prod']})]),
    ('slurm:', [('srun', {})]),
    ('slurm:17', [('srun', {'jobid': '17'})]),
    ('slurm:17_2/node-1.hpc', [('srun', {'jobid': '17_2', 'node': 'node-1.hpc'})]),
    ('ssh://login/slurm:/node1', [('ssh', {'hostname': 'login'}), ('srun', {'node': 'node1'})]),
    ('setns:docker/web', [('setns', {'kind': 'docker', 'container': 'web'})]),
    ('setns:lxc/bob@web', [('setns', {'kind': 'lxc', 'container': 'web', 'username': 'bob'})]),
    ('ssh://bastion/ssh://web1/sudo:',
     [('ssh', {'hostname': 'bastion'}), ('ssh', {'hostname': 'web1'}), ('sudo', {})]),
    ('ssh://web1/k8s:prod/web-0/su:bob',
     [('ssh', {'hostname': 'web1'}), ('kubectl', {'pod': 'web-0', 'kubectl_args': ['--namespace', 'prod']}),
      ('su', {'username': 'bob'})]),
    ('local:/usr/bin/python3/sudo:', [('local', {'python_path': '/usr/bin/python3'}), ('sudo', {})]),
])
def test_a_target_names_methods_and_options(target, hops):
    assert parse(target) == hops


@pytest.mark.parametrize('target,says', [
    ('', 'no host'), ('ssh://', 'no host'), ('ssh://user@', 'no host'), ('ssh://web1:port', 'no host'),
    ('ssh://user:secret@web1', 'password='), ('telnet:web1', 'none of'), ('docker:', 'NAME'), ('lxc:bob@web', 'NAME'),
    ('k8s:', 'POD'), ('k8s:/web', 'POD'), ('setns:web', 'KIND'),
    ('slurm:node1', 'slurm:/NODE'), ('slurm:17/-x', 'slurm:/NODE'),
])
def test_what_is_no_target_is_told_how_to_be_one(target, says):
    with pytest.raises(TargetError, match=says) as info:
        parse(target)
    assert 'secret' not in str(info.value)


def test_a_target_is_text():
    with pytest.raises(TypeError):
        parse(5)
