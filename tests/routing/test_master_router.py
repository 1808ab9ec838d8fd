"""
The router of a master, its broker, and the watchers of threads.
"""

import logging
import os
import re
import sys
import threading

import pytest
import places
import testlib
from responders import run_program

import mitogen.core
import mitogen.master
import mitogen.parent


# Known to children by the same name as here.
sys.path.insert(0, places.IMPORTER_DATA)
try:
    import responder_child as child
finally:
    sys.path.remove(places.IMPORTER_DATA)


# The packages in tests/data/importer can be imported.
pytestmark = pytest.mark.usefixtures('importer_data')


def test_handlers_of_a_master(router):
    for handle in (100, 102, 103, 104, 105, 109, 112, 114):
        assert handle in router._handle_map
    assert len(router._handle_map) == 8


def test_the_largest_message_is_handed_down(make_router):
    router = make_router(max_message_size=65536)
    context = router.local()
    for context in (context, router.local(via=context)):
        assert context.call(child.max_message_size) == 65536


def test_disconnecting_all(router):
    contexts = [router.local(), router.local()]
    exits = mitogen.core.Latch()
    for stream in router.get_streams():
        mitogen.core.listen(stream.conn.proc, 'exit', exits.put)
    router.disconnect_all()
    for _ in contexts:
        exits.get(timeout=60)
    for context in contexts:
        with pytest.raises(mitogen.core.ChannelError) as e:
            context.call(os.getpid)
        text = router.no_route_msg % (context.context_id, mitogen.context_id)
        assert str(e.value).startswith(text + ': ') and 'was lost at' in str(e.value)


def test_disconnecting_one(router):
    first, second = router.local(), router.local()
    gone = mitogen.core.Latch()
    mitogen.core.listen(first, 'disconnect', gone.put)
    router.disconnect_stream(router.stream_by_id(first.context_id))
    gone.get(timeout=60)
    assert second.call(os.getpid)


def test_statistics_are_logged_at_the_end(broker):
    router = mitogen.master.Router(broker)
    assert sorted(router.get_stats()) == [
        'bad_load_module_count', 'get_module_count', 'get_module_secs', 'good_load_module_count',
        'good_load_module_size', 'minify_secs', 'pushed_module_count', 'unused_module_count']
    with testlib.LogCapture('mitogen') as logs:
        broker.shutdown()
        broker.join()
    assert logs.find('module requests', level=logging.DEBUG)


DEBUG = """
import os, mitogen.master
if __name__ == '__main__':
    with mitogen.master.Router() as router:
        before = router.local()
        router.enable_debug()
        print(os.getpid(), router.local().call(os.getpid), before.call(os.getpid))
"""


def test_debug_logs_of_a_tree(tmp_path):
    path = tmp_path / 'program.py'
    path.write_text(DEBUG)
    status, out, err = run_program(str(path), XDG_RUNTIME_DIR=str(tmp_path))
    assert status == 0, err
    found = []
    for pid in out.split():
        logs = list(tmp_path.glob('mitogen.%s.*.log' % (pid,)))
        found.append(len(logs))
        for log in logs:
            assert re.match(r'mitogen\.%s\.\d{8}_\d{6}\.log$' % (pid,), log.name)
            assert 'mitogen' in log.read_text()
    # The one that was started before is as it was.
    assert found == [1, 1, 0]


def test_a_router_is_a_context_manager():
    with mitogen.master.Router() as router:
        assert isinstance(router.broker, mitogen.master.Broker)
        assert router.broker._thread.is_alive()
    assert not router.broker._thread.is_alive()


def test_a_broker_without_a_watcher_starts_one_thread():
    before = set(threading.enumerate())
    broker = mitogen.master.Broker(install_watcher=False)
    try:
        assert [t.name for t in set(threading.enumerate()) - before] == ['mitogen.broker']
    finally:
        broker.shutdown()
        broker.join()


def test_a_broker_of_a_master():
    assert mitogen.master.Broker.shutdown_timeout == 5.0
    assert mitogen.master.Broker.poller_class is mitogen.parent.PREFERRED_POLLER
    broker = mitogen.master.Broker()
    try:
        assert isinstance(broker.timers, mitogen.parent.TimerList)
    finally:
        broker.shutdown()
        broker.join()


def test_a_broker_ends_with_the_thread_that_made_it():
    brokers = []
    thread = threading.Thread(target=lambda: brokers.append(mitogen.master.Broker()))
    thread.start()
    thread.join()
    brokers[0].join()
    assert not brokers[0]._thread.is_alive()


def test_one_helper_watches_a_thread_for_many():
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    before = set(threading.enumerate())
    called = mitogen.core.Latch()
    watchers = [
        mitogen.master.ThreadWatcher.watch(thread, lambda number=number: called.put(number)) for number in range(3)]
    assert [t.name for t in set(threading.enumerate()) - before] == ['mitogen.master.join_thread_async']
    watchers[1].remove()
    watchers[1].remove()
    done.set()
    assert [called.get(timeout=60) for _ in range(2)] == [0, 2]
    thread.join()
