"""
How much a child is sent before it asks for it: that follows the distance, and what was sent in vain
is counted.
"""

import logging
import sys
from types import SimpleNamespace

import pytest

import mitogen.core
import mitogen.master

import testlib

MODULES = {
    'ahe_top.py': 'import sys\n'
                  'if sys.maxsize < 5:\n    import ahe_never\n'
                  'import ahe_used\n'
                  'def late():\n    import ahe_late\n    return ahe_late.value\n'
                  'class Kind(object):\n    def method(self):\n        from ahe_pkg import inner\n        return inner\n',
    'ahe_never.py': '', 'ahe_used.py': 'value = 1\n', 'ahe_late.py': 'import ahe_below\nvalue = ahe_below.value\n',
    'ahe_below.py': 'value = 7\n', 'ahe_pkg/__init__.py': '', 'ahe_pkg/inner.py': '', 'ahe_next.py': '',
}

#: Passes on each byte after some time, both ways.
RELAY = '''
import os, subprocess, sys, threading, time
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
def pass_on(source, target):
    while True:
        data = os.read(source, 131072)
        time.sleep(float(sys.argv[1]))
        if not data:
            return os.close(target)
        while data:
            data = data[os.write(target, data):]
threading.Thread(target=pass_on, args=(0, child.stdin.fileno()), daemon=True).start()
pass_on(child.stdout.fileno(), 1)
'''


@pytest.fixture
def modules(tmp_path, monkeypatch):
    testlib.write_files(tmp_path, MODULES)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def spare(monkeypatch):
    """
    A function that says how many bytes are sent on a guess.
    """
    return lambda size: monkeypatch.setattr(mitogen.master._Distance, 'spare_bytes', lambda _distance: size)


def run(child, code):
    return child.call(eval, "(__import__('ahe_top'), eval(%r, vars(__import__('sys').modules['ahe_top'])))[1]" % (code,))


def requests(router):
    return router.get_stats()['get_module_count']


def sent(router, child):
    return router.stream_by_id(child.context_id).protocol.sent_modules


def test_what_functions_import_comes_along_if_the_child_is_far(router, modules, spare):
    spare(65536)
    child = router.local()
    run(child, '0')
    testlib.wait_for(lambda: 'ahe_pkg.inner' in sent(router, child))
    before = requests(router)
    assert run(child, '(late(), Kind().method().__name__)') == (7, 'ahe_pkg.inner')
    assert requests(router) == before


def test_it_does_not_if_the_child_is_near(router, modules, spare):
    spare(0)
    child = router.local()
    run(child, '0')
    before = requests(router)
    assert run(child, 'late()') == 7
    assert requests(router) == before + 1


def test_no_more_is_sent_on_a_guess_than_there_is_time_for(router, tmp_path, modules, spare):
    names = ['ahe_guess%d' % number for number in range(20)]
    for name in names:
        (tmp_path / (name + '.py')).write_text('text = 1\n')
    (tmp_path / 'ahe_top.py').write_text('def late():\n' + ''.join('    import %s\n' % name for name in names))
    spare(1)
    child = router.local()
    run(child, '0')
    push = router.stream_by_id(child.context_id).protocol._push
    testlib.wait_for(lambda: push._distance.is_settled() and not push._answered and push._messages is None)
    assert router.get_stats()['pushed_module_count'] == 1


@pytest.mark.skipif(sys.version_info < (3, 10), reason='files() looks at the disk only')
@pytest.mark.parametrize('size', [3, 600000])
def test_files_that_are_read_come_along_if_the_child_is_far(router, tmp_path, modules, spare, monkeypatch, size):
    (tmp_path / 'ahe_pkg' / '__init__.py').write_text(
        'from importlib.resources import as_file, files\n'
        'def read():\n    with as_file(files("ahe_pkg").joinpath("data.txt")) as path:\n        return len(path.read_text())\n')
    (tmp_path / 'ahe_pkg' / 'data.txt').write_text('x' * size)
    monkeypatch.setattr(mitogen.parent, '_is_far', lambda stream: True)
    asked = []
    get = mitogen.master.ResourceResponder._answer_with_files
    monkeypatch.setattr(mitogen.master.ResourceResponder, '_answer_with_files', lambda self, stream, request: (
        asked.append(request[1]), get(self, stream, request))[1])
    spare(0)
    # The child has no package of ours.
    child = router.local(python_path=[sys.executable, '-S'])
    child.call(eval, "__import__('ahe_pkg') and None")
    push = router.stream_by_id(child.context_id).protocol._push
    testlib.wait_for(lambda: push._messages is None)
    # The broker's thread sends the files right after that.
    testlib.sync(router.broker)
    assert child.call(eval, "__import__('ahe_pkg').read()") == size
    assert ('data.txt' in asked) == (size > 3)
    assert requests(router) == 1


def test_files_that_cannot_be_sent_ahead_are_one_warning(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, logger='mitogen')
    monkeypatch.setattr(mitogen.master, '_swallowed', set())
    monkeypatch.setattr(mitogen.parent, '_is_far', lambda stream: True)

    def fail(_stream, package, _most):
        raise ModuleNotFoundError(package) if package == 'ahe_denied' else OSError(5, 'Input/output error')
    responder = SimpleNamespace(_send_small_files=fail)
    for _ in range(2):
        push = SimpleNamespace(_readers={'ahe_denied', 'ahe_pkg'}, _files_sent=set(), _stream=None, _distance=None,
                               _router=SimpleNamespace(resource_responder=responder), most_files=1)
        mitogen.master._Push._send_files(push)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']
    assert "'ahe_pkg'" in warning and 'Input/output error' in warning


def test_modules_for_a_slow_network_are_compressed_harder(router, tmp_path, modules, spare, monkeypatch):
    spare(0)
    for name in 'ahe_first', 'ahe_second':
        (tmp_path / (name + '.py')).write_text('x = %r\n' % (list(range(3000)),))
    sizes = []
    compress = mitogen.master._Parcels.content
    monkeypatch.setattr(mitogen.master._Parcels, 'content', lambda self, parcel, as_bytecode, level: (
        sizes.append((parcel.name, level)), compress(self, parcel, as_bytecode, level))[1])
    child = router.local()
    child.call(eval, "__import__('ahe_used') and None")
    monkeypatch.setattr(mitogen.parent, '_is_far', lambda stream: True)
    child.call(eval, "__import__('ahe_first') and None")
    testlib.wait_for(distance_of(router, child).is_settled)
    distance_of(router, child).rate = 100000.0
    child.call(eval, "__import__('ahe_second') and None")
    assert [size for size in sizes if size[0].startswith('ahe_')] == [('ahe_used', 0), ('ahe_first', 1), ('ahe_second', 6)]


@pytest.mark.parametrize('depth', [1, 2])
def test_what_was_sent_and_never_used_is_counted(router, modules, spare, depth):
    spare(0)
    first = router.local()
    child = first if depth == 1 else router.local(via=first)
    assert run(child, 'ahe_used.value') == 1
    child.shutdown(wait=True)
    first.shutdown(wait=True)
    testlib.wait_for(lambda: router.get_stats()['unused_module_count'] == 1)
    assert router.stats()['unused_modules'] == 1
    assert router.stats()['pushed_modules'] >= 2


def test_what_is_used_later_is_counted_no_more(router, modules, spare):
    spare(0)
    child = router.local()
    run(child, '0')
    child.call(eval, "__import__('ahe_next') and None")
    testlib.wait_for(lambda: router.get_stats()['unused_module_count'] == 1)
    child.call(eval, "__import__('ahe_never') and None")
    child.shutdown(wait=True)
    testlib.wait_for(lambda: router.get_stats()['unused_module_count'] == 0)


def test_a_child_that_reports_what_it_was_not_sent_changes_no_count(router, modules, spare):
    spare(0)
    child = router.local()
    run(child, '0')
    push = router.stream_by_id(child.context_id).protocol._push
    for report in b'-ahe_never no_such other', b'-ahe_never ahe_never', b'+', b'+' * 100, b'', b'-\xff', b'?':
        router.broker.defer_sync(lambda: push.hear(report))
        assert router.get_stats()['unused_module_count'] <= 1


def distance_of(router, child):
    return router.stream_by_id(child.context_id).protocol._push._distance


def test_the_distance_of_a_child_is_measured(router, modules):
    child = router.local(python_path=[sys.executable, '-c', RELAY, '0.05', sys.executable])
    run(child, '0')
    distance = distance_of(router, child)
    testlib.wait_for(distance.is_settled)
    assert distance.round_trip >= 0.1
    assert distance.is_far()
    # So the next call of a function that imports asks for nothing.
    testlib.wait_for(lambda: 'ahe_pkg.inner' in sent(router, child))


@pytest.fixture
def clock(monkeypatch):
    """
    The seconds of a clock that the test sets.
    """
    moment = [100.0]
    monkeypatch.setattr(mitogen.core, 'now', lambda: moment[0])
    return moment


class Connected(object):
    STAGE_SENT, STAGE_READY = 'sent', 'ready'
    _stages = (('sent', 10.0), ('ready', 10.5))


def test_the_handshake_is_the_first_measurement():
    assert mitogen.master._Distance(Connected).round_trip == 0.5
    assert mitogen.master._Distance(None).round_trip == 0.0


def test_answers_make_it_better(clock):
    distance = mitogen.master._Distance(Connected)
    assert distance.rate is None
    assert distance.spare_bytes() == 262144
    assert not distance.is_slow()
    for _ in range(3):
        distance.note_sent(100000)
    clock[0] += 0.25
    distance.note_confirmed()
    assert distance.round_trip == 0.25
    assert distance.spare_bytes() == 262144
    clock[0] += 1
    distance.note_confirmed()
    clock[0] += 1
    distance.note_confirmed()
    assert (distance.round_trip, distance.rate) == (0.25, 100000.0)
    assert distance.is_slow()
    assert distance.spare_bytes() == 16384
    distance.note_confirmed()
    distance.note_sent(1)
    clock[0] += 0.001
    distance.note_confirmed()
    assert not distance.is_far() and distance.spare_bytes() == 0


def test_a_child_that_confirms_nothing_costs_no_memory(clock):
    distance = mitogen.master._Distance(None)
    for _ in range(3 * distance.most_open):
        distance.note_sent(1)
    assert len(distance._open) == distance.most_open
