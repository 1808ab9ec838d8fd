"""
The names of the newer interface: each is there, with the parameters and attributes that programs
use.
"""

import concurrent.futures
import inspect

import pytest

import mitogen
import mitogen.aio
import mitogen.core
import mitogen.master
import mitogen.parent


#: Class -> its bases, and its names. A name with parameters is a method that takes these.
CLASSES = {
    mitogen.Tree: ((mitogen.master.Router,), '''
        hosts __enter__() __exit__() close() connect(target,via,name,timeout) connect_all(concurrency,timeout)
        __init__(output,limits,threads)'''),
    mitogen.Caller: ((), 'call(fn) submit(fn) map(fn) stream(fn) options()'),
    mitogen.Host: ((mitogen.Caller, mitogen.parent.Context), '''
        tree info lost connect(target) sudo(user,password) executor(max_workers,processes)
        run(args,input,timeout,check,text,env,cwd) put(local,remote,progress) get(remote,local,progress) close(timeout)
        read_text(path) write_text(path,text) mkdir(path) tempdir() __enter__() __exit__()'''),
    mitogen.Group: ((), 'failed alive map(fn) options(concurrency) __len__() __getitem__()'),
    mitogen.Result: ((), 'unwrap()'),
    mitogen.Stream: ((), '__enter__() __exit__() __iter__() __next__() close()'),
    mitogen.HostExecutor: ((concurrent.futures.Executor,), 'submit(fn) map(fn) shutdown(wait,cancel_futures)'),
    mitogen.RemoteError: ((mitogen.core.CallError,), 'host reason'),
    mitogen.ConnectError: ((mitogen.core.StreamError, ConnectionError), 'host stage hint output returncode reason'),
    mitogen.AuthError: ((mitogen.ConnectError,), ''),
    mitogen.HostKeyError: ((mitogen.ConnectError,), ''),
    mitogen.HostDown: ((mitogen.ConnectError,), ''),
    mitogen.NoPython: ((mitogen.ConnectError,), ''),
    mitogen.ConnectTimeout: ((mitogen.ConnectError, TimeoutError), ''),
    mitogen.ConnectionLost: ((mitogen.core.ChannelError, ConnectionError), 'host link when returncode output reason'),
    mitogen.DeadlineExceeded: ((mitogen.core.TimeoutError, TimeoutError), 'host began reason'),
    mitogen.ValueRefused: ((mitogen.core.Error, TypeError), 'host where'),
    mitogen.aio.Tree: ((), '''
        connect(target) ssh(hostname) connect_all() close() __aenter__() __aexit__()'''),
    mitogen.aio.Host: ((), '''
        call(fn) stream(fn) run(args) put(local,remote) get(remote,local) options() connect(target) close()
        __aenter__() __aexit__()'''),
    mitogen.aio.Group: ((), 'map(fn) options(concurrency,timeout)'),
    mitogen.aio.Stream: ((), '__aiter__() __anext__() __aenter__() __aexit__() aclose()'),
}


@pytest.mark.parametrize('cls', sorted(CLASSES, key=lambda cls: cls.__module__ + cls.__name__), ids=lambda cls: cls.__name__)
def test_a_class_has_its_names(cls):
    bases, names = CLASSES[cls]
    assert all(issubclass(cls, base) for base in bases) and inspect.getdoc(cls)
    for text in names.split():
        name, is_method, parameters = text.rstrip(')').partition('(')
        found = getattr(cls, name)
        if is_method:
            known = inspect.signature(found).parameters
            assert set(filter(None, parameters.split(','))) <= set(known), (name, known)
            assert name.startswith('__') or inspect.getdoc(found), name


def test_the_module_has_its_names():
    for name in 'Tree connect register Progress CallOptions Copied Completed DownHost FileError HostInfo HostLink'.split():
        assert hasattr(mitogen, name), name
    assert set(vars(mitogen.CallOptions())) == {'timeout', 'worker', 'window', 'window_bytes', 'name'}
    for name in 'host ok value error seconds'.split():
        assert name in mitogen.Result.__dataclass_fields__
    for name in 'hostname user pid python executable platform core'.split():
        assert name in mitogen.HostInfo.__dataclass_fields__


@pytest.mark.parametrize('cls, names', [
    (mitogen.core.Latch, 'put get close size empty'), (mitogen.core.Message, 'pickled unpickle reply dead pack'),
    (mitogen.core.Receiver, 'get size empty close to_sender'), (mitogen.core.Sender, 'send close'),
    (mitogen.core.Router, 'add_handler del_handler route'), (mitogen.core.Context, 'send send_async send_await'),
])
def test_a_class_of_either_core_has_signatures_and_docstrings(cls, names):
    assert inspect.signature(cls) is not None and inspect.getdoc(cls)
    for name in names.split():
        assert inspect.signature(getattr(cls, name)) is not None and inspect.getdoc(getattr(cls, name)), name
