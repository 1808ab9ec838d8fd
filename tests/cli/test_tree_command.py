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
    assert first['bytes_out'] > 0 <= second['bytes_out'] and first['method'] == second['method'] == 'local'


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
    assert status == 0 and 'it told what is no report' in out and '\x1b' not in out + err


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
        with pytest.raises(ValueError, match='no report'):
            tree.Node(5, 'bad', routes=frozenset([2])).take(bad, {5})


def test_a_child_of_the_listener_is_told_nothing(router, tmp_path):
    mitogen.unix.Listener.build_stream(router, path=str(tmp_path / 'sock'))
    mitogen.unix.Listener.build_stream(router, path=str(tmp_path / 'sock2'))
    with pytest.raises(mitogen.core.CallError, match='ChannelError.*refused by policy'):
        router.local().call(lying_host.ask, 0, mitogen.unix._LINKS)
