"""
Ansible on this package: playbooks over a real ssh server, by Ansible itself, by our connection
plugins, and by the strategy of upstream's `ansible_mitogen` on our `mitogen`. All must tell the
same. See docs/ansible.rst.

It needs PyPI, or another place where pip finds ansible-core and upstream's release, and runs when
asked for: ``pytest --ansible``, or with ``CI`` in the environment. Each core, and each way to
switch our plugins on, with the long playbook at its full length: ``make test-ansible``.
"""

import contextlib
import itertools
import os
import re

import pytest

import mitogen.core

import accounts
import testlib
import playbooks
from playbooks import ALL, Run

#: The cores that this run of the tests is about.
CORES = (os.environ.get('MITOGEN_TEST_ANSIBLE_CORES') or mitogen.core.CORE).split()

#: Variables of the long playbook: how often a command is repeated, and the hosts of what is about
#: one as well as of two.
LENGTH = {'many': 100, 'most': 'one:two'} if ALL else {'many': 10, 'most': 'one'}

WAYS = ['command', 'path', 'collection', 'strategy']

#: Why a command is none for us.
USUAL = {'it gives such a command a terminal', 'a command here costs little'}

IN_USE = 'mitogen: connections are fast, on the %s core'


def long_runs():
    """
    Return (way, core) of each run of the long playbook besides the plain one.
    """
    if ALL:
        return [(way, core) for core in CORES for way in WAYS + ['upstream']]
    # Our plugins use little of a core: one will do. So will one for upstream's.
    return [('command', CORES[0]), ('upstream', CORES[-1])]


def read(path):
    with open(path, 'rb') as fp:
        return fp.read()


@pytest.mark.seconds(600)
def test_playbooks_tell_the_same_in_each_way(site):
    plain = Run(site, 'plain').start('everything.yml', '-v', **LENGTH)
    ours = [(way, core, Run(site, way + '-' + core, way, core).start('everything.yml', '-v', **LENGTH))
            for way, core in long_runs()]
    runs = [plain] + [run for _, _, run in ours]
    statuses = [run.wait() for run in runs]
    # The second host fails at the end, the last one cannot be reached.
    assert statuses == [4] * len(runs), '\n'.join(run.printed() for run in runs)

    assert plain.one_record('core')['core'] is None
    for way, core, run in ours:
        assert_in_use(run, way, core)
        assert run.one_record('stats') == plain.one_record('stats')
        # Upstream's describes some failures in words of its own.
        words = way != 'upstream'
        expected, found = plain.results(words), run.results(words)
        assert sorted(found) == sorted(expected)
        for name in expected:
            assert (way, core, name, found[name]) == (way, core, name, expected[name])
        assert len([event for event, _ in found['many commands, on one'] if event == 'item ok']) == LENGTH['many']
        assert not run.sockets()
        # Upstream's has a temporary folder for each interpreter.
        assert way == 'upstream' or not run.left()

    for run in runs:
        for host in 'one', 'two':
            for name in 'small', 'large':
                path = run.fetched + '/' + host + run.target + '/%s/%s' % (host, name)
                assert read(path) == read(os.path.join(site.source, name))
        assert read(run.fetched + '/one' + run.target + '/of-root') == read(os.path.join(site.source, 'small'))


def assert_in_use(run, way, core):
    """
    The connections of a run were those that they should be, on that core.
    """
    if way == 'upstream':
        used, path = run.one_record('core')['core']
        assert used == core
        assert path.startswith(run.site.env.folder)
    else:
        assert run.printed().count(IN_USE % (core,)) == 1, run.printed()


def strategies(way):
    """
    Return the names of the strategies besides the first one.
    """
    return dict((name, ('mitogen_' if way == 'strategy' else '') + name) for name in ('free', 'host_pinned'))


@pytest.mark.seconds(600)
def test_each_way_switches_the_plugins_on(site):
    # Each of our cores is used.
    runs = [(way, core, Run(site, 'way-' + way, way, core).start('ways.yml', '-vvv', **strategies(way)))
            for way, core in zip(WAYS, itertools.cycle(CORES))]
    future = Run(site, 'way-future', 'path', CORES[0])
    future.environ['PYTHONPATH'] = future.site.make_folder('way-future', 'python')
    version = playbooks.make_unknown_ansible(site.env, future.environ['PYTHONPATH'])
    future.start('ways.yml', '-v', **strategies('path'))
    plain = Run(site, 'way-plain').start('ways.yml', '-v', **strategies('plain'))
    assert plain.wait() == 0, plain.printed()
    assert 'mitogen:' not in plain.printed()
    for way, core, run in runs:
        assert run.wait() == 0, run.printed()
        assert_in_use(run, way, core)
        assert set(re.findall("Ansible's own way is used: (.*)", run.printed())) <= USUAL
        assert (way, run.results()) == (way, plain.results())
        # A variable of upstream's strategies is answered where one of their names is used.
        assert run.printed().count('the variable mitogen_ssh_compression has no effect') == (way == 'strategy')
        # The long name of Ansible's own means that one.
        assert run.printed().count('the connection plugin ansible.builtin.ssh is not one that is fast') == (way != 'collection')
        # Nothing is sent as a file, so nothing is left.
        assert not [name for name in os.listdir(run.target) if name.startswith('tmp-') and os.listdir(run.target + '/' + name)]
        assert 'is newer than this package' not in run.printed()
        assert 'in a way that is not known' not in run.printed()

    # With a release that we do not know all works, and that is said once.
    assert future.wait() == 0, future.printed()
    assert_in_use(future, 'path', CORES[0])
    assert future.results() == plain.results()
    assert future.printed().count('mitogen: ansible-core %s is newer than this package' % (version,)) == 1
    assert future.printed().count('mitogen: modules are started in a way that is not known') == 1


@pytest.mark.parametrize('way, end, become', [
    ('upstream', 'kill', True), ('path', 'kill', False), ('path', 'interrupt', True)], ids=['upstream', 'killed', 'interrupted'])
def test_nothing_remains_of_a_controller_that_is_ended(site, way, end, become):
    run = Run(site, '%s-%s' % (end, way), way, CORES[-1])
    run.start('waits.yml', become=become)
    wait_for_task(run)
    # Ansible's own worker outlives its controller until its task is done, and only then releases
    # upstream's. That they are gone is seen to by what checks every test.
    getattr(run, end)()
    if way == 'upstream':
        assert [name for name in run.sockets() if name.startswith('mitogen_unix')]
        os.unlink(os.path.join(run.target, 'waiting'))
    # Upstream's leaves Ansible's folder.
    testlib.wait_for(lambda: not [name for name in run.sockets() if way == 'path' or name.startswith('mitogen_unix')],
                     what='the socket has been removed')
    testlib.wait_for(lambda: not python_processes(site.users[0].uid), 20, what='the interpreters on the target have ended')
    if os.path.exists(os.path.join(run.target, 'waiting')):
        testlib.wait_for(lambda: not waiting(run), 20, what='the task has ended')


def wait_for_task(run):
    waiting = os.path.join(run.target, 'waiting')
    testlib.wait_for(lambda: os.path.exists(waiting) or run.proc.poll() is not None, 60)
    assert run.proc.poll() is None, run.printed()


def waiting(run):
    """
    Return the processes that have the name of the run's file in their environment or arguments.
    """
    found, wanted = [], os.path.join(run.target, 'waiting').encode()
    for name in os.listdir('/proc'):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if b'F=' + wanted in read('/proc/%s/environ' % name).split(b'\0'):
                    found.append(int(name))
    return found


def python_processes(uid):
    found = []
    for pid in accounts.processes_of(uid):
        # One that has just ended is none of them.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b'mitogen' in read('/proc/%d/cmdline' % pid).lower():
                found.append(pid)
    return found


#: Where another process is killed than plain Ansible has.
KILLED = re.compile('the interpreter over there is killed|the daemon is killed|the link is cut|all of the login is killed')


@pytest.mark.seconds(600)
def test_what_goes_wrong_is_told_as_by_ansible_and_the_next_task_works(site):
    plain = Run(site, 'faults-plain', LATE_SECONDS='61').start('faults.yml')
    ours = Run(site, 'faults-ours', 'path', CORES[0], LATE_SECONDS='62').start('faults.yml')
    statuses = [plain.wait(), ours.wait()]
    assert statuses == [0, 0], ours.printed()
    expected, found = plain.results(), ours.results()
    assert sorted(found) == sorted(expected)
    for name in expected:
        if not KILLED.match(name):
            assert (name, found[name]) == (name, expected[name])
    events = dict((name, value[0][0]) for name, value in found.items() if KILLED.match(name))
    assert set(events.values()) <= {'unreachable', 'ignored'}, events
    # Plain Ansible leaves the folders of modules that are killed or end their own process.
    assert len(plain.left()) >= 3
    testlib.wait_for(lambda: not ours.left(), 20, what='the folders of modules are gone')
    testlib.wait_for(lambda: not python_processes(site.users[0].uid), 20, what='the interpreters on the target have ended')


#: A module, the text of which changes in the middle of a run.
CHANGING = '''#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={})
module.exit_json(changed=False, version=1)
'''


def start_seldom(site, name, *args):
    """
    Start the playbooks of what is seldom done. Two of them take minutes.
    """
    run = Run(site, name, *args)
    own = os.path.join(run.folder, 'library')
    os.mkdir(own)
    with open(os.path.join(own, 'changing.py'), 'w') as fp:
        fp.write(CHANGING)
    run.environ['ANSIBLE_LIBRARY'] = '%s:%s' % (os.path.join(playbooks.HERE, 'library'), own)
    books = ['jobs.yml'] + [os.path.join(playbooks.HERE, book) for book in ('seldom.yml', 'kinds.yml') if ALL]
    return run.start(*(books + ['-v']), own=own)


@pytest.mark.seconds(600)
def test_what_is_seldom_done_is_told_as_by_ansible(site):
    plain, ours = start_seldom(site, 'seldom-plain'), start_seldom(site, 'seldom-ours', 'path', CORES[0])
    assert [plain.wait(), ours.wait()] == [0, 0], plain.printed() + ours.printed()
    expected, found = plain.results(), ours.results()
    assert sorted(found) == sorted(expected)
    assert [(name, found[name], expected[name]) for name in expected if found[name] != expected[name]] == []
    assert not ours.left()
    stats = [[record for record in run.records() if record['event'] == 'stats'] for run in (plain, ours)]
    assert stats[0] == stats[1]
    assert_in_use(ours, 'path', CORES[0])
    # A job goes on when the run has ended.
    for run in plain, ours:
        testlib.wait_for(lambda: os.path.exists(os.path.join(run.target, 'outlived')), 60, what='a job has outlived its run')


def tell(folders, words, *omit):
    """
    Return the files below these folders that have one of these words.
    """
    found = []
    for folder in folders:
        for base, _, names in os.walk(folder):
            for path in [os.path.join(base, name) for name in names]:
                with contextlib.suppress(OSError):
                    if os.path.isfile(path) and path not in omit and any(word.encode() in read(path) for word in words):
                        found.append(path)
    return found


@pytest.mark.seconds(300)
def test_nothing_that_is_written_tells_a_secret(site):
    run = Run(site, 'secrets', 'path', CORES[0])
    folders = [run.folder] + [user.home for user in site.users]
    run.environ.update(MITOGEN_ANSIBLE_LOG=os.path.join(run.folder, 'log-of-daemon'), MITOGEN_LOG_LEVEL='debug',
                       MITOGEN_TEST_SECRET='word-that-nobody-may-see')
    words = ['word-that-nobody-may-see'] + [user.password for user in site.users]
    run.start('secrets.yml', '-vvvv')
    wait_for_task(run)
    # The test itself has written this one.
    hosts = os.path.join(run.folder, 'hosts.json')
    assert hosts in tell(folders, words)
    # Ansible's wrapper removes the folder of a job some seconds after its end.
    assert [path for path in tell(folders, words, hosts) if '/ansible-tmp-' not in path] == []
    os.unlink(os.path.join(run.target, 'waiting'))
    assert run.wait() == 0, run.printed()
    assert_in_use(run, 'path', CORES[0])
    assert not re.search("Ansible's own way is used", run.printed())
    assert os.path.getsize(os.path.join(run.folder, 'log-of-daemon'))
    testlib.wait_for(lambda: tell(folders, words, hosts) == [], 20, what='nothing that is left tells a secret')
