"""
The classes of :mod:`mitogen` for asyncio.
"""

import asyncio
import functools
import gc
import importlib.util
import os
import signal
import threading
import time

import pytest

import mitogen
import mitogen.core

import targets
import task_targets
import testlib


#: Kinds of loops that are here.
LOOPS = ['asyncio'] + ['uvloop'] * (importlib.util.find_spec('uvloop') is not None)


@pytest.fixture(scope='module')
def warm():
    """
    libuv makes a pipe for the first loop of a process, and keeps it.
    """
    if 'uvloop' in LOOPS:
        import uvloop
        uvloop.new_event_loop().close()


@pytest.fixture(params=LOOPS)
def run(request, whole, warm):
    """
    A function that runs a coroutine function with a tree and a host, in a loop of a kind.
    """
    if request.param == 'uvloop':
        import uvloop
    shared = next(host for host in whole.hosts if host.name == 'shared')
    shared.call(task_targets.forget)
    shared.call(task_targets.tell)

    def run(func):
        async def main():
            await func(mitogen.aio.Tree(whole), mitogen.aio.Host(shared))

        loop = uvloop.new_event_loop() if request.param == 'uvloop' else asyncio.new_event_loop()
        try:
            loop.run_until_complete(asyncio.wait_for(main(), testlib.patience()))
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
    yield run
    gc.collect()


def test_a_call_is_awaited(run):
    async def main(tree, host):
        assert await host.call(targets.add, 1, 2) == 3
        assert host.name == 'shared'
    run(main)


def test_many_calls_are_outstanding(run):
    async def main(tree, host):
        assert await asyncio.gather(*(host.call(targets.add, i, i) for i in range(1000))) == [2 * i for i in range(1000)]
    run(main)


def test_errors_are_those_of_a_tree(run):
    async def main(tree, host):
        with pytest.raises(mitogen.RemoteError, match='on purpose'):
            await host.call(targets.fail)
        with pytest.raises(TypeError):
            await host.call(lambda: None)
        with pytest.raises(mitogen.NoPython):
            await tree.connect('local:/nothing/here')
    run(main)


def test_a_call_that_is_cancelled_is_cancelled_over_there(run):
    async def main(tree, host):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(host.call(task_targets.sleep_and_note, 600, 'late'), 0.2)
        assert 'late' not in await host.call(task_targets.seen)
    run(main)


@pytest.mark.skipif(not hasattr(asyncio, 'timeout'), reason='asyncio.timeout came with Python 3.11')
def test_a_timeout_of_asyncio_cancels_over_there(run):
    async def main(tree, host):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await host.call(task_targets.sleep_and_note, 600, 'late')
        assert 'late' not in await host.call(task_targets.seen)
    run(main)


@pytest.mark.skipif(not hasattr(asyncio, 'TaskGroup'), reason='asyncio.TaskGroup came with Python 3.11')
def test_a_group_of_which_one_fails_cancels_the_others_over_there(run):
    async def main(tree, host):
        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: F821
            async with asyncio.TaskGroup() as group:
                # The host runs one at a time: the failure comes first, and the others wait or have
                # begun.
                group.create_task(host.call(targets.fail))
                for _ in range(3):
                    group.create_task(host.call(task_targets.sleep_and_note, 600, 'late'))
        assert caught.group_contains(mitogen.RemoteError, match='on purpose')
        assert 'late' not in await host.call(task_targets.seen)
    run(main)


def test_hosts_end_with_their_block(run):
    async def main(tree, host):
        async with await tree.connect() as child:
            pid = await child.call(os.getpid)
            async with await child.connect('local:') as below:
                assert await below.call(os.getppid) == pid
        testlib.wait_for(lambda: not testlib.is_running(pid))
        with pytest.raises(mitogen.ConnectionLost):
            await child.call(os.getpid)
    run(main)


def test_a_host_that_is_lost_ends_what_is_awaited(run):
    async def main(tree, host):
        child = await tree.connect()
        call = asyncio.ensure_future(child.call(time.sleep, 600))
        await asyncio.sleep(0)
        await child.close()
        with pytest.raises(mitogen.ConnectionLost):
            await call
    run(main)


def test_items_of_a_stream(run):
    async def main(tree, host):
        async with host.stream(task_targets.count, 1000) as stream:
            assert [item async for item in stream] == list(range(1000))
        async with host.stream(task_targets.count, 5, fail_at=3) as stream:
            found = []
            with pytest.raises(mitogen.RemoteError, match='at 3'):
                async for item in stream:
                    found.append(item)
            assert found == [0, 1, 2]
    run(main)


def test_a_stream_ends_with_its_block(run):
    async def main(tree, host):
        async with host.stream(task_targets.sleepy_count) as stream:
            assert await stream.__anext__() == 0
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.__anext__(), 0.1)
        assert await host.call(task_targets.highest) == 'closed'
    run(main)


def test_a_window_of_a_stream(run):
    async def main(tree, host):
        async with host.options(window=1).stream(task_targets.count, 50) as stream:
            assert [item async for item in stream] == list(range(50))
        with pytest.raises(TypeError):
            host.options(timeout=1)
    run(main)


def test_a_thread_uses_the_same_host_meanwhile(run):
    async def main(tree, host):
        loop = asyncio.get_running_loop()
        in_thread = loop.run_in_executor(None, lambda: [host.sync.call(targets.add, i, 1) for i in range(100)])
        assert [await host.call(targets.add, i, 2) for i in range(100)] == list(range(2, 102))
        assert await in_thread == list(range(1, 101))
    run(main)


def test_a_loop_that_closes_under_a_call_harms_nobody(host):
    async def main():
        asyncio.ensure_future(mitogen.aio.Host(host).call(time.sleep, 0.2))
        await asyncio.sleep(0.05)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert host.call(targets.add, 1, 2) == 3
    del loop
    gc.collect()


def test_a_tree_of_its_own_ends_with_its_block():
    async def main():
        async with mitogen.aio.Tree(threads=2) as tree:
            host = await tree.connect()
            pid = await host.call(os.getpid)
        return pid

    pid = asyncio.run(main())
    testlib.wait_for(lambda: not testlib.is_running(pid))
    gc.collect()


def test_a_group_tells_of_each_host_as_it_comes(run):
    async def main(tree, host):
        group = await tree.connect_all(['local:', 'local:/nothing/here', 'local:'])
        assert len(group) == 3 and list(group.failed) == ['local:/nothing/here'] and len(group.alive) == 2
        assert isinstance(group[0], mitogen.aio.Host) and len(group[1:]) == 2
        results = [result async for result in group.options(concurrency=1).map(targets.add, 1, 2)]
        assert sorted(str(result.value) for result in results) == ['3', '3', 'None']
        assert [type(result.error) for result in results if not result.ok] == [mitogen.NoPython]
        late = [result async for result in group.options(timeout=0.1).map(time.sleep, 600)]
        assert sorted(type(result.error).__name__ for result in late) == ['DeadlineExceeded'] * 2 + ['NoPython']
        failed = [result.error async for result in group.map(targets.fail) if isinstance(result.error, mitogen.RemoteError)]
        assert len(failed) == 2
        with pytest.raises(ValueError):
            group.options(concurrency=0)
        results = group.map(time.sleep, 600)
        assert not (await results.__anext__()).ok
        await results.aclose()
        # The other calls have ended.
        assert await group[0].call(targets.add, 1, 2) == 3
        for one in group.alive:
            await one.close()
    run(main)


def test_processes_and_files(run, tmp_path):
    async def main(tree, host):
        done = await host.run(['sh', '-c', 'cat; exit 3'], input='text')
        assert (done.returncode, done.stdout) == (3, 'text')
        with pytest.raises(mitogen.CommandError):
            await host.run('exit 1', check=True)
        (tmp_path / 'here').write_bytes(b'x' * 100000)
        told = []
        await host.put(tmp_path / 'here', tmp_path / 'there', progress=lambda *args: told.append(args))
        await host.get(tmp_path / 'there', tmp_path / 'back')
        assert (tmp_path / 'back').read_bytes() == b'x' * 100000 and told[-1][1:] == (100000, 100000)
        with pytest.raises(mitogen.FileError):
            await host.get(tmp_path / 'nothing', tmp_path / 'back')
    run(main)


def test_only_what_differs_is_sent(run, tmp_path):
    async def main(tree, host):
        source = tmp_path / 'source'
        source.mkdir()
        (source / 'x').write_bytes(b'x' * 300000)
        told = []
        copied = await host.sync_to(source, tmp_path / 'there', progress=lambda *args: told.append(args))
        assert (copied.files, copied.sent) == (1, 300000) and told[-1] == ('x', 300000, 300000)
        (tmp_path / 'there' / 'old').write_bytes(b'x')
        copied = await host.sync_to(source, tmp_path / 'there', delete=True, checksum=True)
        assert (copied.same, copied.sent, copied.removed) == (1, 0, 1)
        copied = await host.sync_from(tmp_path / 'there', tmp_path / 'back', compress=True, resume=True)
        assert (copied.files, copied.same) == (1, 0) and copied.sent < 10000
        group = await tree.connect_all(['local:', 'local:/no/such/python'])
        results = {result.ok: result async for result in group.sync_to(source, tmp_path / 'there')}
        assert results[True].value.same == 1 and results[False].error is group[1].error
        async for result in group.options(timeout=0).sync_to(source, tmp_path / 'there'):
            assert not result.ok
        for host in group.alive:
            await host.close()
    run(main)


def test_a_process_and_a_copy_that_are_cancelled_end(run, tmp_path):
    async def main(tree, host):
        path = tmp_path / 'pid'
        call = asyncio.ensure_future(host.run('echo $$ > %s.new; mv %s.new %s; exec sleep 600' % (path, path, path)))
        while not path.exists():
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        pid = int(path.read_text())
        while testlib.is_running(pid):
            await asyncio.sleep(0.01)
        for number in range(100):
            (tmp_path / 'tree').mkdir(exist_ok=True)
            (tmp_path / 'tree' / str(number)).write_bytes(b'x' * 100000)
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        go_on = threading.Event()

        def progress(*args):
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(testlib.patience())
        copy = asyncio.ensure_future(host.put(tmp_path / 'tree', tmp_path / 'copy', progress=progress))
        await begun.wait()
        copy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copy
        go_on.set()
        assert await host.call(targets.add, 1, 2) == 3
    run(main)


def test_a_thread_of_trio_calls(host):
    trio = pytest.importorskip('trio')
    assert trio.run(trio.to_thread.run_sync, host.call, targets.add, 1, 2) == 3


def test_a_call_is_taken_by_all_that_takes_coroutines(run):
    async def main(tree, host):
        assert asyncio.iscoroutine(made := host.call(targets.add, 1, 2)) and await made == 3
        task = asyncio.create_task(host.call(targets.add, 1, 2), name='named')
        assert await task == 3 and task.get_name() == 'named'
        assert await asyncio.wait_for(host.call(targets.add, 1, 2), testlib.patience()) == 3
        assert await asyncio.shield(host.call(targets.add, 1, 2)) == 3
        assert [await one for one in asyncio.as_completed([host.call(targets.add, 1, 2)])] == [3]
        results = await asyncio.gather(host.call(targets.fail), host.call(lambda: None), host.call(targets.add, 1, object()),
                                       host.call(targets.add, 1, 2), return_exceptions=True)
        assert [type(result) for result in results[:2]] == [mitogen.RemoteError, TypeError] and results[3] == 3
        assert isinstance(results[2], TypeError)
        with pytest.raises(mitogen.RemoteError, match='on purpose'):
            await asyncio.create_task(host.call(targets.fail))
    run(main)


def test_a_call_ends_with_its_task_or_its_coroutine(run):
    async def main(tree, host):
        for begin in range(2):
            task = asyncio.create_task(host.call(task_targets.sleep_and_note, 600, 'late'))
            if begin:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        call = host.call(task_targets.sleep_and_note, 600, 'late')
        call.close()
        call = host.call(task_targets.sleep_and_note, 600, 'late')
        with pytest.raises(KeyError):
            call.throw(KeyError('x'))
        # All of them have ended.
        assert 'late' not in await host.call(task_targets.seen)
    run(main)


def test_calls_of_a_tree_that_ends_fail(warm):
    async def main():
        tree = mitogen.Tree()
        host = mitogen.aio.Host(tree.connect('local:'))
        calls = [asyncio.ensure_future(host.call(time.sleep, 600)) for _ in range(3)]
        await asyncio.sleep(0.01)
        await asyncio.get_running_loop().run_in_executor(None, tree.close)
        for call in calls:
            with pytest.raises(mitogen.core.Error):
                await call
        with pytest.raises(mitogen.core.Error):
            await host.call(targets.add, 1, 2)

    asyncio.run(main())
    gc.collect()


def test_calls_are_made_outside_of_a_loop_too(run, host):
    assert asyncio.run(mitogen.aio.Host(host).call(targets.add, 1, 2)) == 3
    gc.collect()


def test_keywords_partials_and_large_results(run):
    async def main(tree, host):
        assert await host.call(targets.add, 1, b=2) == 3
        assert await host.call(functools.partial(targets.add, 1), 2) == 3
        assert await host.call(abs, -3) == 3
        assert await host.call(bytes, 100000) == bytes(100000)
    run(main)


def test_an_interrupt_while_answers_are_handed_out_ends_the_loop_and_loses_no_other(whole):
    shared = mitogen.aio.Host(next(host for host in whole.hosts if host.name == 'shared'))
    loop = asyncio.new_event_loop()
    call_soon, seen = loop.call_soon, []

    def interrupted(callback, *args, context=None):
        # A loop runs lines of Python here, as an answer wakes a task.
        handle = call_soon(callback, *args, context=context)
        if not seen and 'wakeup' in repr(callback):
            seen.append(callback)
            signal.raise_signal(signal.SIGINT)
        return handle

    async def main():
        first, second = shared.call(abs, -1), shared.call(abs, -2)
        tasks.extend(loop.create_task(call) for call in (first, second))
        # Both wait for their answers, which are here when the loop looks for them again.
        await asyncio.sleep(0)
        shared.sync.call(abs, -3)
        loop.call_soon = interrupted
        await asyncio.wait(tasks)

    tasks = []
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait_for(main(), testlib.patience()))
        assert loop.run_until_complete(asyncio.wait_for(tasks[1], testlib.patience())) == 2
    finally:
        signal.signal(signal.SIGINT, old)
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()
