"""
Children in containers, by stubs of the tools: tests/data/stubs. They take the real command lines, and start the child.
connect.md 14.
"""

import os
import sys

import pytest

import mitogen.core
import mitogen.incus
import mitogen.lxc
import mitogen.lxd
import mitogen.parent
from mitogen.core import StreamError

import targets

STUBS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'data', 'stubs')
JEXEC = os.path.join(STUBS, 'jexec')
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
    monkeypatch.setenv('PATH', STUBS + os.pathsep + os.environ['PATH'])
    monkeypatch.setenv('MITOGEN_STUB_LOG', str(log))
    return lambda: log.read_text().splitlines()


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


@pytest.mark.parametrize('method', sorted(METHODS))
def test_a_container_beyond_another_context(router, method):
    _, options, _, name = METHODS[method]
    child = router.local(name='middle')
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
        # What the tool said is there.
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
