"""
Children in containers, by stubs of the tools: tests/data/stubs. They take the real command lines,
and start the child.
"""

import os
import subprocess
import sys

import pytest

import mitogen
import mitogen.core
import mitogen.incus
import mitogen.lxc
import mitogen.lxd
import mitogen.parent
from mitogen.core import StreamError

import places
import targets

JEXEC = os.path.join(places.STUBS, 'jexec')
PYTHON = sys.executable

#: Method, keywords, command line up to the interpreter, name.
CASES = [
    ('docker', {'container': 'box'}, 'docker exec --interactive box', 'docker.box'),
    ('docker', {'container': 'box', 'username': 'ann'}, 'docker exec --interactive --user=ann box', 'docker.box'),
    ('docker', {'image': 'image', 'username': 'ann'}, 'docker run --interactive --user=ann --rm image', 'docker.image'),
    ('podman', {'container': 'box'}, 'podman exec --interactive -- box', 'podman.box'),
    ('podman', {'container': 'box', 'username': 'ann'}, 'podman exec --user=ann --interactive -- box', 'podman.box'),
    ('buildah', {'container': 'box'}, 'buildah run -- box', 'buildah.box'),
    ('buildah', {'container': 'box', 'username': 'ann'}, 'buildah run --user=ann -- box', 'buildah.box'),
    ('kubectl', {'pod': 'box'}, 'kubectl exec -it box --', 'kubectl.box[]'),
    ('kubectl', {'pod': 'box', 'kubectl_args': ['-n', 'space']}, 'kubectl -n space exec -it box --',
     "kubectl.box['-n', 'space']"),
    ('lxc', {'container': 'box'}, 'lxc-attach --clear-env --name box --', 'lxc.box'),
    ('lxd', {'container': 'box', 'python_path': PYTHON}, 'lxc exec --mode=noninteractive box --', 'lxd.box'),
    ('incus', {'container': 'box', 'python_path': PYTHON}, 'incus exec --mode=non-interactive box --', 'incus.box'),
    ('jail', {'container': 'box', 'jexec_path': JEXEC}, 'jexec box', 'jail.box'),
    ('jail', {'container': 'box', 'jexec_path': JEXEC, 'username': 'ann'}, 'jexec -U ann box', 'jail.box'),
]

#: One case of each method.
METHODS = dict((case[0], case) for case in reversed(CASES))


@pytest.fixture(autouse=True)
def stubs(monkeypatch, tmp_path):
    """
    The stubs come first in PATH; returned is a function that tells the last command line.
    """
    log = tmp_path / 'argv'
    monkeypatch.setenv('PATH', places.STUBS + os.pathsep + os.environ['PATH'])
    monkeypatch.setenv('MITOGEN_STUB_LOG', str(log))
    return lambda: log.read_text().splitlines()


#: Whether the stubs can make namespaces.
ISOLATED = subprocess.call(['unshare', '--mount', '--uts', '--ipc', '--pid', '--fork', 'true'],
                           stderr=subprocess.DEVNULL) == 0


@pytest.mark.parametrize('method, options, argv, name', CASES)
def test_a_child_in_a_container(router, stubs, method, options, argv, name):
    context = getattr(router, method)(**options)
    assert context.name == name
    environ = context.call(targets.environ)
    assert environ['STUB_TOOL'] == argv.split()[0]
    assert environ['STUB_USER'] == options.get('username', '')
    assert context.call(os.getcwd) == '/'
    command = stubs()
    assert command[:command.index(PYTHON)] == argv.split()
    assert command[command.index(PYTHON) + 1] == '-c'
    if ISOLATED:
        for kind in 'pid', 'mnt', 'uts', 'ipc':
            assert context.call(os.readlink, '/proc/self/ns/' + kind) != os.readlink('/proc/self/ns/' + kind)
        # The first process of a container gets no signal that it does not handle.
        is_init = argv.split()[1] == 'run'
        assert (context.call(os.getpid) == 1) is is_init
    data = b'\0\r\n\xff' * 100000
    assert context.call(targets.identity, data) == data
    gone = mitogen.core.Latch()
    mitogen.core.listen(router.stream_by_id(context.context_id).conn.proc, 'exit', gone.put)
    context.shutdown(wait=True)
    gone.get(timeout=60)


@pytest.mark.parametrize('method', sorted(METHODS))
def test_a_child_in_a_container_is_lost(router, method):
    _, options, _, _ = METHODS[method]
    context = getattr(router, method)(**options)
    receiver = context.call_async(targets.sleep, 600)
    router.stream_by_id(context.context_id).conn.proc.kill()
    with pytest.raises(mitogen.core.ChannelError):
        receiver.get(timeout=60)
    assert getattr(router, method)(**options).call(targets.identity, 1) == 1


@pytest.mark.parametrize('method', sorted(METHODS))
def test_a_container_without_python(router, method):
    _, options, _, name = METHODS[method]
    with pytest.raises(mitogen.parent.EofError) as caught:
        getattr(router, method)(**dict(options, python_path='/nothing/here'))
    text = str(caught.value)
    assert '/nothing/here' in text.split('\nContext ')[0]
    assert '\nContext 1 (%s): ' % name in text
    assert 'Hint: a program of the command line is not there.' in text


def test_a_tree_takes_the_python_of_the_container(tmp_path, monkeypatch, stubs):
    (tmp_path / 'bin').mkdir()
    found = tmp_path / 'bin' / 'python3'
    found.write_text('#!/bin/sh\nFOUND=yes exec %s "$@"\n' % (PYTHON,))
    found.chmod(0o755)
    monkeypatch.setenv('MITOGEN_STUB_PATH', '%s:/usr/bin:/bin' % (tmp_path / 'bin',))
    with mitogen.Tree() as tree:
        for method, (_, options, _, _) in sorted(METHODS.items()):
            with getattr(tree, method)(**dict(options, python_path=None)) as host:
                assert host.call(targets.environ, 'FOUND') == 'yes'
            assert PYTHON not in stubs()


@pytest.mark.parametrize('method', sorted(METHODS))
def test_a_container_whose_python_hangs(router, method, stubs):
    _, options, _, _ = METHODS[method]
    with pytest.raises(StreamError) as caught:
        getattr(router, method)(**dict(options, python_path=['sh', '-c', 'exec sleep 600', 'sh'], connect_timeout=1))
    assert caught.value.args[0].startswith('Connection timed out.')
    assert stubs()


@pytest.mark.parametrize('command, says', [
    ('docker exec box --interactive true', 'No such file or directory'),
    ('docker exec --rm box true', 'unknown flag: --rm'),
    ('docker --user=ann exec box true', 'unknown flag: --user=ann'),
    ('docker exec', 'requires at least 1 argument'),
    ('podman --interactive exec -- box true', 'unrecognized command'),
    ('podman exec --rm -- box true', 'unknown flag: --rm'),
    ('podman exec box -- true', 'No such file or directory'),
    ('buildah --user=ann run -- box true', 'unknown command'),
    ('buildah run --interactive -- box true', 'unknown flag: --interactive'),
    ('kubectl exec -it box true', 'is not supported anymore'),
    ('kubectl exec -it --rm box -- true', 'unknown flag: --rm'),
    ('kubectl -- exec -it box true', 'unknown command ""'),
    ('lxc-attach --clear-env box -- true', 'unrecognized option'),
    ('lxc-attach --clear-env --name box true', 'unrecognized option'),
    ('lxc --mode=noninteractive exec box -- true', 'unknown command'),
    ('lxc exec --mode=noninteractive box true', 'no -- before the command'),
    ('lxc exec box -- true', 'mode auto'),
    ('incus exec --mode=noninteractive box -- true', 'would make a terminal'),
    ('incus exec --mode=non-interactive box true', 'no -- before the command'),
    ('jexec -u ann -U ann box true', 'usage: '),
    ('jexec box', 'no command'),
])
def test_the_stubs_know_their_tools(stubs, command, says):
    # A command line that a stub accepts wrongly would hide a mistake of ours.
    words = command.split()
    done = subprocess.run([os.path.join(places.STUBS, words[0])] + words[1:], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode != 0
    assert says in done.stdout.decode()


@pytest.mark.parametrize('options, words', [
    ({'kubectl_args': ['--namespace=space', '--token=t', '-c', 'side']}, '--namespace=space --token=t -c side'),
    ({'kubectl_args': ['-n', 'space', '--context', 'c']}, '-n space --context c'),
])
def test_arguments_of_kubectl(router, stubs, options, words):
    assert router.kubectl(pod='box', **options).call(targets.environ, 'STUB_TOOL') == 'kubectl'
    assert stubs()[1:].index('exec') == len(words.split())


def terminal_of(pid):
    """
    Return the number of the terminal that controls a process; 0 if there is none.
    """
    with open('/proc/%d/stat' % pid) as fp:
        return int(fp.read().rpartition(')')[2].split()[4])


@pytest.mark.parametrize('method', sorted(METHODS))
def test_a_container_sees_no_terminal(router, method):
    _, options, _, _ = METHODS[method]
    context = getattr(router, method)(**options)
    proc = router.stream_by_id(context.context_id).conn.proc
    assert terminal_of(proc.pid) == terminal_of(os.getpid())
    for fd in 0, 1, 2:
        # Where the stub may not make namespaces it becomes the child, which gives its input up.
        assert os.readlink('/proc/%d/fd/%d' % (proc.pid, fd)).startswith(('socket:', '/dev/null'))


def test_containers_beyond_another_context(router):
    child = router.local(name='middle')
    for method in sorted(METHODS):
        _, options, _, name = METHODS[method]
        context = getattr(router, method)(via=child, **options)
        assert context.name == 'middle.' + name
        assert context.call(targets.identity, 1) == 1


@pytest.mark.parametrize('method', sorted(METHODS))
def test_no_such_container(router, method):
    options = dict(METHODS[method][1])
    options['pod' if method == 'kubectl' else 'container'] = 'nothing'
    with pytest.raises(mitogen.parent.EofError) as caught:
        getattr(router, method)(**options)
    text = str(caught.value)
    assert text.startswith(mitogen.parent.Connection.eof_error_msg)
    if method not in ('lxc', 'lxd', 'incus'):
        # The tool's own words are there.
        assert 'nothing' in text.split('Command was')[0]


def test_a_tool_that_is_not_there(router):
    with pytest.raises(StreamError) as caught:
        router.docker(container='box', docker_path='/nothing/here')
    assert str(caught.value).startswith('Child start failed: [Errno 2] No such file or directory')


@pytest.mark.parametrize('module, option', [
    (mitogen.lxc, 'lxc_attach_path'), (mitogen.lxd, 'lxc_path'), (mitogen.incus, 'incus_path')])
def test_a_tool_that_keeps_its_reasons_to_itself(router, module, option):
    method = module.__name__.split('.')[1]
    with pytest.raises(mitogen.parent.EofError) as caught:
        getattr(router, method)(container='box', **{option: 'true'})
    assert str(caught.value).endswith(module.Connection.eof_error_hint)
    assert '/var/log' in module.Connection.eof_error_hint
    with pytest.raises(StreamError) as caught:
        getattr(router, method)(container='box', **{option: '/nothing/here'})
    assert str(caught.value).endswith(module.Connection.eof_error_hint)


def test_python_path_is_what_runs_in_the_container(router, stubs):
    context = router.docker(container='box', python_path=['/usr/bin/env', 'X=y', PYTHON])
    assert context.call(targets.environ, 'X') == 'y'
    assert stubs()[3:7] == ['box', '/usr/bin/env', 'X=y', PYTHON]
