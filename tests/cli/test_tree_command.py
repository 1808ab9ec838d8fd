"""
``mitogen tree``: the connections of hosts, and of a program.
"""

import json
import os
import subprocess
import sys

import pytest

import mitogen
import mitogen._links
import mitogen.command
import mitogen.core
import mitogen.unix
from mitogen._cli import paint, tree

import lying_host

HERE = 'local:'


@pytest.fixture
def command(capfdbinary):
    def run(*args):
        try:
            status = mitogen.command.main(['tree'] + list(args))
        except SystemExit as e:
            status = e.code
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()
    return run


def test_the_way_to_hosts(command):
    status, out, err = command('--timeout', '60', HERE, 'local:/local:', 'local:/no/such/python')
    lines = out.splitlines()
    assert status == 255 and len(lines) == 4 and err.startswith('mitogen: local:/no/such/python: ')
    assert lines[0].startswith('mitogen  pid %d, ' % (os.getpid(),))
    assert [line[:8] for line in lines[1:]].count('    └── ') + [line[:8] for line in lines[1:]].count('│   └── ') == 1
    for line in lines[1:]:
        assert '%s core  local, in ' % (mitogen.core.CORE,) in line and 'queued 0 B' in line


def test_it_tells_programs(command):
    status, out, err = command('--timeout', '60', '--json', 'local:/local:')
    root = json.loads(out)
    assert (status, err, root['id'], root['pid']) == (0, '', 0, os.getpid())
    (first,) = root['children']
    (second,) = first['children']
    assert second['children'] == [] and second['pid'] not in (first['pid'], root['pid'])
    # The text that starts a child counts, too: nothing else has gone to the second one.
    assert first['bytes_out'] > second['bytes_out'] > 300 and min(first['bytes_in'], second['bytes_in']) > 50
    assert first['method'] == second['method'] == 'local'


#: A program with a host behind another one, which is busy once it was told so.
PROGRAM = '''
import sys, time, mitogen, mitogen.unix
with mitogen.Tree() as tree:
    near = tree.connect('local:', name='near\\x1b[2J')
    far = near.connect('local:', name='far')
    near.call(len, '')
    mitogen.unix.Listener.build_stream(tree, path=sys.argv[1])
    for line in iter(lambda: (print('ready', flush=True), sys.stdin.readline())[1], ''):
        near.submit(time.sleep, 600)
'''


@pytest.fixture
def program(tmp_path):
    path = str(tmp_path / 'mitogen_unix_own.sock')
    proc = subprocess.Popen([sys.executable, '-c', PROGRAM, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with proc:
        assert proc.stdout.readline() == 'ready\n'
        yield proc, path
        proc.kill()


def test_a_program_that_runs(command, program):
    proc, path = program
    status, out, err = command('--timeout', '60', '--socket', path)
    root, near, far = out.splitlines()
    assert status == 0 and root.startswith('program -c at %s  pid %d, ' % (path, proc.pid))
    assert near.startswith('└── ') and 'near\\x1b[2J  pid ' in near and far.startswith('    └── ') and 'far' in far
    assert 'queued' in near and 'queued' in far
    proc.stdin.write('\n')
    proc.stdin.flush()
    assert proc.stdout.readline() == 'ready\n'
    status, out, err = command('--timeout', '0.2', '--socket', path)
    root, near, far = out.splitlines()
    assert status == 0 and near.endswith('  busy') and far.endswith('somewhere behind this host') and 'queued' in near


def test_programs_are_found_in_the_usual_folder(command, program, monkeypatch, tmp_path):
    proc, path = program
    dead = tmp_path / 'mitogen_unix_dead.sock'
    dead.write_text('')
    monkeypatch.setattr(mitogen.unix, 'make_socket_path', lambda: str(tmp_path / 'x'))
    assert tree.sockets() == [path]
    status, out, err = command('--json')
    assert status == 0 and json.loads(out)['pid'] == proc.pid
    monkeypatch.setattr(mitogen.unix, 'make_socket_path', lambda: str(tmp_path / 'empty' / 'x'))
    status, out, err = command()
    assert (status, out) == (1, '') and '--socket PATH' in err


def test_nobody_listens(command, tmp_path):
    status, out, err = command('--socket', str(tmp_path / 'none'))
    assert (status, out) == (1, '') and len(err.splitlines()) == 1 and 'could not connect' in err


@pytest.mark.once
def test_a_wrong_command_line(command, tmp_path):
    status, out, err = command('--socket', str(tmp_path), HERE)
    assert status == 2 and 'name hosts, or a socket' in err


def test_a_host_that_tells_something_else(command, monkeypatch):
    monkeypatch.setattr(mitogen._links, 'links', lying_host.no_links)
    status, out, err = command('--timeout', '60', HERE)
    assert status == 0 and 'its report cannot be read' in out and '\x1b' not in out + err


@pytest.mark.once
def test_a_host_is_believed_about_those_behind_it_only():
    def link(context_id, routes=()):
        return dict(dict.fromkeys(tree.COUNTERS, 1), id=context_id, name=lying_host.LIE, method='ssh', routes=list(routes))

    def report(*links):
        return dict(lying_host.facts(), pid=1, links=list(links))
    root = tree.Node(0, 'root', routes=frozenset([1, 2, 3]))
    known = {0}
    root.take(report(link(1, [1, 2]), link(3)), known)
    first, third = root.children
    # Its parent, itself, one that is elsewhere, one that nobody knows; and one that is true, twice.
    first.take(report(link(0), link(1), link(3), link(9), link(2, [2, 3, 9]), link(2)), known)
    assert [node.id for node in first.children] == [2] and first.children[0].routes == frozenset()
    text = '\n'.join(tree.lines(root, paint.Paint()))
    assert not set(text) & set('\x1b\x9b\u202e') and len(text.splitlines()) == 4
    for bad in None, [], {}, report(None), report({'id': 2}), dict(report(), links=7), report(dict(link(2), bytes_in='x')):
        with pytest.raises(ValueError, match='its report cannot be read'):
            tree.Node(5, 'bad', routes=frozenset([2])).take(bad, {5})


def report(context_id, routes, **facts):
    link = dict(dict.fromkeys(tree.COUNTERS, 1), id=context_id, name='x', method='ssh', routes=routes)
    return dict(lying_host.facts(), pid=1, links=[link], **facts)


@pytest.mark.once
@pytest.mark.parametrize('value', [lying_host.many_times(), lying_host.deep(), 10 ** 5000], ids=['wide', 'deep', 'number'])
def test_what_a_host_tells_of_itself_has_an_end(value):
    node = tree.Node(5, 'bad', 'ssh', routes=frozenset([2]))
    told = report(2, [])
    told.update(dict.fromkeys(tree.FACTS, value))
    told['links'][0]['name'] = told['links'][0]['method'] = value
    node.take(told, {5})
    assert 'a value that is' in '\n'.join(tree.lines(node, paint.Paint()))
    assert node.children[0].name.startswith('(a value that is')
    json.dumps(tree._as_json(node))


@pytest.mark.once
def test_a_list_that_is_in_many_links_is_read_a_limited_number_of_times(monkeypatch):
    monkeypatch.setattr(tree, 'NODES_MAX', 10)
    told = report(2, [7] * 5)
    told['links'] = [dict(told['links'][0], id=i) for i in (2, 3, 4)]
    with pytest.raises(ValueError, match='its report cannot be read'):
        tree.Node(5, 'bad', routes=frozenset([2, 3, 4])).take(told, {5})


class Chain(object):
    """
    A router whose contexts each tell of one more behind them, and take their time.
    """
    def __init__(self, monkeypatch, seconds):
        self.clock = 0.0
        self.seconds = seconds
        monkeypatch.setattr(tree, 'time', self)
        self.root = tree.Node(0, 'root', routes=frozenset(range(1, 5000)))
        self.root.take(report(1, list(range(2, 5000))), {0})

    def monotonic(self):
        return self.clock

    def context_by_id(self, context_id):
        self.context_id = context_id
        return self

    def call_async(self, fn):
        return self

    def get(self, timeout):
        self.clock += min(timeout, self.seconds)
        if timeout < self.seconds:
            raise mitogen.core.TimeoutError()
        return self

    def unpickle(self):
        return report(self.context_id + 1, list(range(self.context_id + 2, 5000)))


@pytest.mark.once
def test_a_chain_without_end_is_followed_for_some_levels(monkeypatch):
    chain = Chain(monkeypatch, 0)
    tree.survey(chain, chain.root, 5, True)
    assert chain.context_id == tree.LEVELS_MAX
    lines = list(tree.lines(chain.root, paint.Paint()))
    assert len(lines) == tree.LEVELS_MAX + 2 and 'too deep to be asked' in lines[-1]


@pytest.mark.once
def test_hosts_that_take_their_time_take_it_together(monkeypatch):
    chain = Chain(monkeypatch, 4.5)
    tree.survey(chain, chain.root, 5, True)
    assert chain.clock <= 5 * tree.SURVEY_TIMEOUTS
    assert any('busy' in line for line in tree.lines(chain.root, paint.Paint()))


def test_a_child_of_the_listener_is_told_nothing(router, tmp_path):
    mitogen.unix.Listener.build_stream(router, path=str(tmp_path / 'sock'))
    mitogen.unix.Listener.build_stream(router, path=str(tmp_path / 'sock2'))
    with pytest.raises(mitogen.core.CallError, match='ChannelError.*refused by policy'):
        router.local().call(lying_host.ask, 0, mitogen.unix._LINKS)
