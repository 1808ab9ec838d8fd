"""
Hosts that answer the commands of ``mitogen`` with data that nobody asked for. Their words are
escaped, and cost no other host its result.
"""

import json
import tracemalloc

import pytest

import mitogen
import mitogen._facts
import mitogen._tasks
import mitogen.command
import mitogen.core
from mitogen._cli import display, values
from mitogen._files.items import DATA, FILE
from mitogen._tree import running
from mitogen._tree.content import Content
from mitogen._tree.options import DEFAULT

import lying_host

HERE = 'local:'


@pytest.fixture
def command(capfdbinary):
    def run(*args):
        status = mitogen.command.main(list(args))
        out, err = capfdbinary.readouterr()
        text = (out + err).decode()
        assert not set(text) & set(u'\x1b\x9b\u202e'), text
        assert not [line for line in text.splitlines() if line.startswith('root | ')]
        return status, out.decode(), err.decode()
    return run


@pytest.mark.parametrize('options', [['ping'], ['info'], ['info', '--json'], ['doctor']])
@pytest.mark.parametrize('lie', [
    lying_host.facts, lying_host.no_facts, lying_host.failing_facts, lying_host.endless_facts, lying_host.list_of_facts])
def test_the_words_of_a_host_are_escaped(command, monkeypatch, options, lie):
    monkeypatch.setattr(mitogen._facts, 'about', lie)
    monkeypatch.setattr(mitogen._facts, 'python', lie)
    status, out, err = command(*options + [HERE])
    assert out or err
    told = lie in (lying_host.facts, lying_host.endless_facts)
    # The version that `ping` asks for may be any text.
    told = told or options == ['ping'] and lie != lying_host.failing_facts
    assert (status == 0) == (told and options != ['doctor'])


@pytest.mark.parametrize('name', ['loop', 'odd_keys', 'many_times', 'long_number'])
def test_a_value_that_is_no_json_costs_no_other_host_its_result(command, monkeypatch, name):
    monkeypatch.setattr(values, 'MOST', 1 << 20)
    status, out, err = command('run', '--json', HERE, HERE + '/', '-m', 'lying_host:' + name)
    assert [json.loads(line)['ok'] for line in out.splitlines()] == [True, True]
    status, out, err = command('run', HERE, HERE + '/', '-m', 'lying_host:' + name)
    assert status == 0 and len(out.splitlines()) == 2


@pytest.mark.parametrize('item', [5, (1,), (1, 2, 3), (7, b'x'), ([], b'x'), (1, u'text'), (2, None), (True, b'x'),
                                  (1, b'x' * (running.ITEM_MAX + 1))], ids=lambda item: repr(item)[:20])
def test_what_is_no_output_is_an_error_of_ours(host, item):
    with pytest.raises(mitogen.core.StreamError, match='answer of liar is not the output of a process'):
        told(host, item).follow({1: len, 2: len})


@pytest.mark.parametrize('value', [u'7', None, [], True, 1 << 32, -10 ** 5000], ids=lambda value: type(value).__name__)
def test_what_is_no_exit_status_is_an_error_of_ours(host, monkeypatch, value):
    monkeypatch.setattr(running, 'start_process', lambda *args, **kwargs: told(host, (0, value)))
    with pytest.raises(mitogen.core.StreamError, match='answer of liar is not an exit status'):
        host.run(['true'])


@pytest.fixture(scope='module')
def host():
    with mitogen.Tree() as tree:
        yield tree.local(name='liar')


def told(host, *items):
    return running.Running(host, DEFAULT, mitogen._tasks.stream, ('lying_host', None, 'items'), items, {})


def test_output_beyond_what_the_caller_keeps_is_an_error(host):
    with pytest.raises(mitogen.core.StreamError, match='process on liar wrote more than 1000 bytes'):
        host.run('yes', max_output=1000)
    # The error ends the process, and no limit is that of a function.
    parts = []
    done = host.run('printf %2000d 1; printf %1000d 1 >&2', max_output=1000, stdout=parts.append)
    assert (done.stdout, len(b''.join(parts)), len(done.stderr)) == (None, 2000, 1000)
    assert len(host.run('printf %2000d 1', max_output=None).stdout) == 2000


def test_neither_output_nor_value_passes_for_the_heading_of_another_host(command):
    status, out, err = command('run', '--group', HERE, HERE + '/', '--', 'echo "== web2: ok"; echo "== web3" >&2')
    assert status == 0 and out.count('\n == web2: ok\n') == 2 and err == ' == web3\n' * 2
    status, out, err = command('run', '--group', HERE, HERE + '/', '-m', 'lying_host:heading')
    assert status == 0 and out.count('\n == web2: ok\nroot\\x1b[2J\n') == 2


def test_many_small_pieces_take_no_more_memory_than_they_have():
    shown, kept, content = display.Json(), running._Kept(None, None), Content(b'x', 1 << 20)
    content.take([(FILE, b'x', 0o644, -1)])
    tracemalloc.start()
    try:
        for number in range(20000):
            data = b'%d' % (10 + number % 90)
            shown.write(HERE, 1, data)
            kept.write(2, data)
            content.take([(DATA, data)])
        assert tracemalloc.get_traced_memory()[0] < 10 * 20000
    finally:
        tracemalloc.stop()
    assert [len(text) for text in (shown._take(HERE)[0], kept.read(2), content._found)] == [40000] * 3


def test_the_end_of_a_long_output_is_in_an_error_and_not_all_of_it():
    done = running.Completed('x', 1, 'y', u'a\n' * 100000 + u'x' * 10000, 'host')
    with pytest.raises(mitogen.CommandError) as caught:
        done.check_returncode()
    assert len(str(caught.value)) < 5000
