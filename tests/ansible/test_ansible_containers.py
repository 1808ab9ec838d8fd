"""
Containers: our connection plugins and those of the collections, over a program that plays docker
and the like and really starts what it is told to; `chroot` is the real one. All must tell the same,
with fewer calls of that program. `synchronize` and a network device are tried here, too, as they
are of collections.
"""

import json
import os
import re

import pytest

import ansible_env
import playbooks

#: As inventories name them: the short name, or the long one.
KINDS = ['community.docker.docker', 'podman', 'kubernetes.core.kubectl']

#: They are taken to work in the same way, and do less here.
MORE = ['lxd', 'community.general.incus', 'community.general.chroot']

#: Names that the program is called by.
PROGRAMS = ['docker', 'podman', 'kubectl', 'lxc', 'incus']


def a_device(site):
    """
    Return the variables of a device whose command line is a user's shell.
    """
    return dict(
        site.inventory()['all']['hosts']['two'], ansible_connection='ansible.netcommon.network_cli', ansible_network_os='box',
        ansible_network_cli_ssh_type='libssh', ansible_host_key_checking=False)


def start(site, name, way, collections, fast):
    run = playbooks.Run(site, name, way)
    hosts, more = [dict((kind.rpartition('.')[2], {
        'ansible_connection': 'mitogen.fast.' + kind.rpartition('.')[2] if fast else kind,
        'ansible_host': '/' if kind.endswith('chroot') else 'box',
        'ansible_user': 'root'}) for kind in kinds) for kinds in (KINDS, MORE)]
    absent = dict((kind + '-absent', dict(variables, ansible_host='absent')) for kind, variables in hosts.items())
    inventory = os.path.join(run.folder, 'containers.json')
    with open(inventory, 'w') as fp:
        json.dump({'containers': {'hosts': hosts}, 'more': {'hosts': more}, 'absent': {'hosts': absent},
                   'devices': {'hosts': {'device': a_device(site)}}}, fp)
    programs = site.make_folder(name, 'programs')
    for program in PROGRAMS:
        os.symlink(os.path.join(playbooks.HERE, 'files', 'container.sh'), os.path.join(programs, program))
    run.environ.update(
        PATH=programs + ':' + run.environ['PATH'], ANSIBLE_FORKS='7',
        ANSIBLE_TERMINAL_PLUGINS=os.path.join(playbooks.HERE, 'plugins', 'terminal'),
        CONTAINER_LOG=os.path.join(run.folder, 'calls'), ANSIBLE_COLLECTIONS_PATH=collections)
    return run.start('containers.yml', '-v', '-i', inventory)


def calls(run):
    """
    Return how often a command was started in a container that is there.
    """
    with open(run.environ['CONTAINER_LOG']) as fp:
        return len([line for line in fp if re.search('(exec |^)(.*[: ])?box ', line)])


def told(run):
    """
    Return the results of a run, without the words about containers that are not there: they quote
    the command.
    """
    found = run.results()
    return dict((name, [event for event, _ in found[name]] if 'absent' in name else found[name]) for name in found)


@pytest.mark.seconds(600)
def test_containers_tell_the_same_as_by_the_plugins_of_their_collections(site):
    collections = ansible_env.collections()
    plain = start(site, 'containers-plain', 'plain', collections, False)
    runs = [start(site, 'containers-path', 'path', collections, False)]
    if playbooks.ALL:
        runs.append(start(site, 'containers-fast', 'plain', collections, True))
    statuses = [run.wait() for run in [plain] + runs]
    assert set(statuses) == {0}, '\n'.join(run.printed() for run in [plain] + runs)
    expected = told(plain)
    for run in runs:
        found = told(run)
        assert sorted(found) == sorted(expected)
        assert [(name, found[name], expected[name]) for name in expected if found[name] != expected[name]] == []
        # It is named as one of those that are left alone, where ours stand in the places of others.
        told_once = run.printed().count('the connection plugin ansible.netcommon.network_cli is not one that is fast')
        assert told_once == (run is runs[0])
        # A context each, another one where the connection was made anew, and what is left to the
        # collection's plugin.
        assert calls(run) < calls(plain) / 5
