"""
The public interface as a typed program uses it. Never run: ``mypy --strict`` reads it
(tests/interface/test_typing.py), and every ``assert_type`` is a claim about the stubs.
"""

import dataclasses
import getpass
import os
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Optional

from typing_extensions import assert_type

import mitogen
import mitogen.core
import mitogen.fakessh
import mitogen.fork
import mitogen.master
import mitogen.parent
import mitogen.select
import mitogen.service
import mitogen.ssh
import mitogen.sudo
import mitogen.unix
import mitogen.utils


def add(first: int, second: int) -> int:
    return first + second


@mitogen.core.takes_econtext
def where(path: str, econtext: mitogen.core.ExternalContext) -> list[str]:
    assert_type(econtext.router, mitogen.core.Router)
    return os.listdir(path)


@mitogen.core.takes_router
def stream_back(sender: mitogen.core.Sender, router: Optional[mitogen.core.Router] = None) -> None:
    sender.send(1)
    sender.close()


class Counter(mitogen.service.Service):
    @mitogen.service.expose(policy=mitogen.service.AllowParents())
    @mitogen.service.arg_spec({'name': str, 'by': (int, float)})
    def count(self, name: str, by: float, msg: mitogen.core.Message) -> float:
        return by

    @mitogen.service.expose(policy=mitogen.service.AllowAny())
    @mitogen.service.no_reply()
    def note(self, text: str) -> None:
        pass


def connections(router: mitogen.master.Router) -> mitogen.parent.Context:
    bastion = router.ssh(hostname='bastion', username='me', port=22, check_host_keys='accept', password='x')
    root = router.sudo(via=bastion, username='root', password=b'x', preserve_env=True, python_path=['env', 'python3'])
    router.su(username='web')
    router.doas()
    router.docker(container='c')
    router.lxd(container='c')
    router.kubectl(pod='p', kubectl_args=['-n', 'x'])
    router.setns(container='c', kind='docker')
    router.fork(on_start=lambda econtext: None)
    router.ssh()                            # type: ignore[call-arg]
    router.ssh(hostname='h', prot=22)       # type: ignore[call-arg]
    router.local(connect_timeout='soon')    # type: ignore[arg-type]
    return root


def calls(context: mitogen.parent.Context, router: mitogen.master.Router) -> None:
    assert_type(context.call(add, 1, 2), int)
    assert_type(context.call(where, '/'), list[str])
    receiver = context.call_async(add, 1, second=2)
    assert_type(receiver, mitogen.core.Receiver)
    assert_type(receiver.get(timeout=1.5), mitogen.core.Message)
    assert_type(receiver.get().unpickle(), Any)
    context.call_no_reply(add, 1, 2)
    with mitogen.parent.CallChain(context, pipelined=True) as chain:
        assert_type(chain.call(add, 1, 2), int)
    for msg in receiver:
        assert_type(msg.src_id, int)
        assert_type(msg.is_dead, bool)
    results: list[int] = mitogen.select.Select.all([receiver])
    try:
        context.call(print, results)
    except mitogen.parent.ConnectError as error:
        assert_type(error.detail, str)
    except (mitogen.core.CallError, mitogen.core.ChannelError, mitogen.ssh.HostKeyError) as error:
        print(error.args[0])


def messages(router: mitogen.master.Router, context: mitogen.parent.Context) -> None:
    with mitogen.core.Receiver(router, policy=mitogen.core.has_parent_authority) as receiver:
        assert_type(receiver.to_sender(), mitogen.core.Sender)
        channel = mitogen.core.Channel(router, context, receiver.handle)
        channel.send(mitogen.core.Blob(b'x'))
    latch = mitogen.core.Latch()
    latch.put(1)
    with mitogen.select.Select([receiver, latch], oneshot=False) as select:
        event = select.get_event(timeout=1)
        print(event.source, event.data)
    assert_type(router.add_handler(lambda msg: print(msg.data), handle=123, persist=False), int)
    assert_type(router.broker.defer_sync(lambda: 5), int)
    context.send(mitogen.core.Message.pickled(1, dst_id=context.context_id, handle=5))
    assert_type(router.myself(), mitogen.core.Context)
    timer = router.broker.timers.schedule(mitogen.core.now() + 1, lambda: None)
    timer.cancel()


def services(router: mitogen.master.Router, context: mitogen.parent.Context) -> None:
    pool = mitogen.service.Pool(router, services=[Counter(router)], size=4)
    context.call_service(Counter, 'count', name='x', by=1)
    context.call_service('some.Name', 'method')
    files = mitogen.service.FileService(router)
    files.register('/etc/hostname')
    with open('/dev/null', 'wb') as fp:
        ok, metadata = mitogen.service.FileService.get(context, '/etc/hostname', fp)
        assert_type(ok, bool)
    pool.stop()


def others(router: mitogen.master.Router, context: mitogen.parent.Context) -> None:
    stream = mitogen.unix.Listener.build_stream(router)
    client, parent = mitogen.unix.connect(stream.protocol.path)
    assert_type(client, mitogen.master.Router)
    assert_type(parent, mitogen.parent.Context)
    assert_type(mitogen.fakessh.run(context, router, ['rsync', '-a', 'x', 'h:y']), int)
    mitogen.fork.on_fork()
    mitogen.utils.log_to_file(level='DEBUG')
    router.responder.whitelist_prefix('mine')
    router.responder.forward_modules(context, ['mine.module'])


def program(router: mitogen.master.Router, count: int, name: str = '') -> str:
    return name * count


# ---- the programs of the guide

def gather(path: str = '/') -> bool:
    return os.path.isdir(path)


def follow(path: str) -> Iterator[str]:
    with open(path) as fp:
        yield from fp


def slow() -> None:
    pass


def work(number: int) -> int:
    return number * number


def many() -> None:
    with mitogen.Tree(output=lambda host, line: print(host.name, line), threads=2) as tree:
        assert_type(tree.ssh(hostname='web1', port=2222), mitogen.Host)
        hosts = tree.connect_all(['ssh://deploy@web%d' % i for i in range(20)], concurrency=10, timeout=20)
        for r in hosts.options(timeout=60).map(gather):
            assert_type(r, mitogen.Result[bool])
            if r.error is not None:
                print(r.host, r.error)
            else:
                assert_type(r.unwrap(), bool)


def one(host: mitogen.Host) -> None:
    with host.stream(follow, '/var/log/syslog') as lines:
        for line in lines:
            assert_type(line, str)
    host.options(timeout=5, worker=True, name='slow').call(slow)
    future = host.submit(work, 5)
    assert_type(future, Future[int])
    assert_type(future.cancel(), bool)
    with host.executor(max_workers=8) as pool:
        assert_type(list(pool.map(work, [1, 2])), list[int])
    host.put('build/', '/srv/app', progress=lambda path, done, total: None)
    host.get('/var/log/app/', 'logs/')
    root = host.sudo(password=getpass.getpass)
    assert_type(root, mitogen.Host)
    assert_type(root.info.core, str)
    assert_type(root.info.link.round_trip, float)
    assert_type(host.lost, Optional[mitogen.ConnectionLost])
    assert_type(host.map(work, [1]), Iterator[int])
    assert_type(host.run(['true'], timeout=5), mitogen.Completed)
    try:
        host.call(work, 5)
    except mitogen.ConnectionLost as error:
        assert_type(error.returncode, Optional[int])
    except mitogen.ConnectError as error:
        assert_type(error.stage, Optional[str])


async def later() -> None:
    async with mitogen.aio.Tree() as tree:
        host = await tree.ssh('web1')
        assert_type(await host.call(gather), bool)
        async for line in host.stream(follow, '/var/log/syslog'):
            assert_type(line, str)
        async for result in (await tree.connect_all(['local:'])).map(gather):
            assert_type(result, mitogen.Result[bool])


@mitogen.register
@dataclasses.dataclass
class Point:
    x: int


# ---- older programs

@mitogen.utils.with_router
def decorated(router: mitogen.master.Router, count: int) -> bytes:
    return b'x' * count


@mitogen.main(log_level='DEBUG')
def main(router: mitogen.master.Router) -> None:
    assert_type(mitogen.utils.run_with_router(program, 5, name='x'), str)
    assert_type(decorated(5), bytes)
    assert_type(mitogen.is_master, bool)
    assert_type(mitogen.core.CORE, str)
