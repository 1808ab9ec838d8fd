# SPDX-License-Identifier: BSD-3-Clause
"""
Host: a context with the newer interface.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

import mitogen.core
import mitogen.parent
from mitogen._tree import caller, errors, observing, reader, running
from mitogen._tree.options import MOST_READ
from mitogen._tree.tasks import HostTasks

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Self

    from mitogen._tree import files, meter, sync_meter
    from mitogen._tree.executor import HostExecutor
    from mitogen._tree.info import HostInfo
    from mitogen._tree.tree import Tree

    P = ParamSpec('P')

T = TypeVar('T')


#: The flag of the code of a coroutine.
_COROUTINE = 0x80


def _is_coroutine_function(fn: Any) -> bool:
    """
    Tell what :mod:`inspect` tells, which is a large module, and not needed for plain functions.
    """
    if isinstance(fn, (type, types.BuiltinFunctionType)):
        return False
    if isinstance(fn, types.FunctionType) and not fn.__dict__:
        return bool(fn.__code__.co_flags & _COROUTINE)
    import inspect
    return inspect.iscoroutinefunction(fn)


class Host(caller.Caller, mitogen.parent.Context):
    """
    A Python somewhere that functions can be called in: a :class:`mitogen.parent.Context`, and so
    all that takes a context takes a host. The end of its block of ``with`` ends it.

    :ivar name: text for people.
    :ivar via: the host that was asked to start this one, or None.
    :ivar lost: the :class:`ConnectionLost` that tells why it cannot be reached any more, or None.
    """
    lost: Optional[errors.ConnectionLost] = None
    #: The whole tree ends with this host.
    _owns_tree = False
    _watched = False
    _info: Optional[HostInfo] = None

    def __init__(self, router: Any, context_id: int, name: Optional[str] = None) -> None:
        super().__init__(router, context_id, name)
        self._tasks = HostTasks(self)
        self._reader = reader.Reader()

    @property
    def tree(self) -> Tree:
        """
        The tree that it belongs to.
        """
        return self.router  # type: ignore[no-any-return]

    @property
    def info(self) -> HostInfo:
        """
        The :class:`HostInfo`: facts about it. The first use asks the host, and waits. Any thread
        but the broker's.

        :raises ConnectionLost: the host went away.
        :raises StreamError: it sent something else than facts.
        """
        if self._info is None:
            from mitogen._tree.info import ask
            try:
                self._info = ask(self)
                return self._info
            except mitogen.core.ChannelError as e:
                error = errors.told(e, self)
            raise error
        return self._info

    def _target(self) -> Host:
        return self

    def _watch(self) -> None:
        """
        Begin to take note of a loss.
        """
        self._watched = True
        mitogen.core.listen(self, 'disconnect', self._on_lost)

    def _on_lost(self) -> None:
        text = mitogen.core.Router.respondent_disconnect_msg + getattr(self, '_loss', '')
        self.lost = errors.ConnectionLost.of(mitogen.core.ChannelError(text), self.name)

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        tree = self.router
        if tree.threads != 1 or tree._observers or _is_coroutine_function(fn):
            return super().call(fn, *args, **kwargs)
        return caller.call_directly(self, fn, args, kwargs)  # type: ignore[no-any-return]
    call.__doc__ = caller.Caller.call.__doc__

    def connect(self, target: str, /, **options: Any) -> Host:
        """
        Have this host start another one, and return that: as :meth:`Tree.connect`.
        """
        return self.tree.connect(target, via=self, **options)

    def sudo(self, user: str = 'root', *, password: Union[str, Callable[[], str], None] = None, **options: Any) -> Host:
        """
        Return a host that is another user here, by way of sudo.

        :param password: text, or a function that is called for it.
        """
        if callable(password):
            password = password()
        return self.connect('sudo:' + user, password=password, **options)

    def run(
        self, args: running.Command, *, input: Union[bytes, str, None] = None, timeout: Optional[float] = None,
        check: bool = False, text: bool = True, env: Optional[Mapping[str, Optional[str]]] = None,
        cwd: Optional[str] = None, stdout: Optional[running.Output] = None,
        stderr: Union[running.Output, int, None] = None, terminal: bool = False,
        max_output: Optional[int] = running.KEPT_MAX,
    ) -> running.Completed:
        """
        Run a process there and wait for its end. The arguments and the result are like those of
        :func:`subprocess.run`. Any thread but the broker's. The process has a group of its own. The
        group is ended at a timeout, at Ctrl-C here, and with the host: by SIGTERM, and two seconds
        later by SIGKILL.

        :param args: list of words; or text, a line for the shell over there.
        :param input: text or bytes for its stdin.
        :param timeout: seconds; None for no limit.
        :param check: raise an error unless its exit status is zero.
        :param text: return text (UTF-8, what is none replaced), not bytes.
        :param env: variables to add to those of the host; one whose value is None is taken out.
        :param cwd: folder over there.
        :param stdout: function that is called with bytes as they are written. The default is to
            return them.
        :param stderr: likewise; or `subprocess.STDOUT`, for one pipe.
        :param terminal: give it a terminal, and so a single output.
        :param max_output: bytes of output that are kept here; the process is ended at the next one.
            None is for any number. Time in a function is not counted.
        :raises CommandError: with `check`: its status is not zero. It
            is a :class:`subprocess.CalledProcessError`, too.
        :raises CommandTimeout: it did not end in time. It is a :class:`subprocess.TimeoutExpired`,
            too.
        :raises RemoteError: it could not be started.
        :raises StreamError: it wrote more than `max_output`, or the host sent something else than
            output.
        :raises ConnectionLost: the host went away.
        """
        return running.run(
            self, args, input=input, timeout=timeout, check=check, text=text, env=env, cwd=cwd, stdout=stdout,
            stderr=stderr, terminal=terminal, max_output=max_output)

    def put(
        self, local: files.Path, remote: files.Path, *, progress: Optional[meter.Progress] = None,
    ) -> meter.Copied:
        """
        Copy a file or a tree from here to the host. Each file appears there at once and whole: it
        is written under another name beside it. Modes are kept, symbolic links stay links. A folder
        that is there already keeps its mode and its other files.

        :param local: file or folder. With a slash at its end its content is meant.
        :param remote: the path that it gets. With a slash at its end it is a folder to put it into,
            which is made if it is not there. A file is put into a folder that is there without a
            slash, too.
        :param progress: called with the path of a file below `local`, how many of its bytes are
            there, and how many it has. The thread of the caller calls it.
        :raises FileError: something cannot be read, or not be written, or changed while it was
            read. The files before it stay there.
        :raises ConnectionLost: the host went away.
        """
        from mitogen._tree import files
        with observing.whole(self, 'put', 'copy'):
            return files.put(self, local, remote, progress)

    def get(
        self, remote: files.Path, local: files.Path, *, progress: Optional[meter.Progress] = None,
    ) -> meter.Copied:
        """
        Copy a file or a tree from the host to here, as `put` does the other way round. A host can
        write nothing outside of `local`, also if it does not keep to the protocol.
        """
        from mitogen._tree import files
        with observing.whole(self, 'get', 'copy'):
            return files.get(self, remote, local, progress)

    def sync(
        self, local: files.Path, remote: files.Path, *, checksum: bool = False, resume: bool = False,
        compress: bool = False, delete: bool = False, progress: Optional[meter.Progress] = None,
    ) -> sync_meter.Synced:
        """
        Have the host get a file or a tree of here, of which only what differs is sent. A file of
        the same size and time is the same; of another one, the blocks are sent that the host does
        not have. Paths mean what they mean for `put`, and times are kept, too. Checksums tell that
        what was written is what was read.

        :param checksum: compare the content of all files.
        :param resume: when this is broken off, leave the file that was being written as a part
            beside it, and let the next call with `resume` go on from there.
        :param compress: compress what is sent. Where ``ssh`` does that anyway, there is no use.
        :param delete: remove the entries of a folder over there that the folder here has not, as
            soon as all files of that folder have arrived; and replace those of another kind. A fifo
            here, and all else that does not travel, keeps the entry of its name over there.
        :param progress: called as that of `put`, of files that are not the same.
        :raises FileError: as by `put`; or a checksum is not that of the file that was sent.
        :raises ConnectionLost: the host went away.
        """
        from mitogen._tree import sync
        with observing.whole(self, 'sync', 'copy'):
            return sync.put(self, local, remote, checksum, resume, compress, delete, progress)

    def sync_from(
        self, remote: files.Path, local: files.Path, *, checksum: bool = False, resume: bool = False,
        compress: bool = False, delete: bool = False, progress: Optional[meter.Progress] = None,
    ) -> sync_meter.Synced:
        """
        Get a file or a tree of the host, as `sync` does the other way round. A file that differs is
        sent whole, since a host is not told what is here; with `checksum` it is told the digests of
        blocks of the files here that it names, and sends what differs of them. A host can write
        nothing outside of `local`, also if it does not keep to the protocol.
        """
        from mitogen._tree import sync
        with observing.whole(self, 'sync_from', 'copy'):
            return sync.get(self, remote, local, checksum, resume, compress, delete, progress)

    def read_bytes(self, path: files.Path, *, limit: int = MOST_READ) -> bytes:
        """
        Return the content of a file over there.

        :param limit: bytes that it may have. They are held in memory.
        :raises FileError: it cannot be read, or has more.
        """
        from mitogen._tree import files
        with observing.whole(self, 'read_bytes', 'copy'):
            return files.read(self, path, limit)

    def read_text(self, path: files.Path, encoding: str = 'utf-8', errors: str = 'strict') -> str:
        """
        Return the content of a file over there, as text.

        :raises FileError: it cannot be read.
        """
        return self.read_bytes(path).decode(encoding, errors)

    def write_bytes(self, path: files.Path, data: bytes, *, mode: Optional[int] = None) -> None:
        """
        Write a file over there, whole and at once.

        :param mode: what it gets; None for that of the file which it replaces, or what the umask
            leaves.
        :raises FileError: it cannot be written.
        """
        from mitogen._tree import files
        with observing.whole(self, 'write_bytes', 'copy'):
            files.write(self, path, data, mode)

    def write_text(
        self, path: files.Path, text: str, encoding: str = 'utf-8', errors: str = 'strict', *,
        mode: Optional[int] = None,
    ) -> None:
        """
        Write a file over there, as `write_bytes` does.
        """
        self.write_bytes(path, text.encode(encoding, errors), mode=mode)

    def mkdir(self, path: files.Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """
        Make a folder over there. The arguments are those of :meth:`pathlib.Path.mkdir`.

        :raises FileError: it cannot be made.
        """
        from mitogen._tree import files
        files.mkdir(self, path, mode, parents, exist_ok)

    def tempdir(self, prefix: str = 'mitogen-') -> contextlib.AbstractContextManager[str]:
        """
        Return a block of ``with`` for a new folder over there, whose path it gives, and which is
        removed at its end.
        """
        from mitogen._tree import files
        return files.tempdir(self, prefix)

    def executor(self, max_workers: Optional[int] = None, *, processes: bool = False) -> HostExecutor:
        """
        Return a :class:`concurrent.futures.Executor` whose workers are threads of this host, or
        processes below it.

        :param max_workers: how many functions run at a time; the number of processors there if
            None.
        """
        from mitogen._tree.executor import HostExecutor
        return HostExecutor(self, max_workers, processes)

    def close(self, timeout: Optional[float] = None) -> None:
        """
        End it, and all hosts below it, and wait until that is done. May be repeated.

        :param timeout: seconds to wait for its last words; then the connection is cut. None is for
            no limit.
        :raises ChannelError: it does not want to end.
        """
        if self._owns_tree:
            self.tree.close()
        elif self.lost is None:
            try:
                self.shutdown(wait=False).get(timeout)
            except mitogen.core.TimeoutError:
                self.tree.disconnect(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
