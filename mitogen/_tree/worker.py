# SPDX-License-Identifier: BSD-3-Clause
"""
Workers: processes of their own for single calls. They end with the call, and so can be ended at any
time.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional

import mitogen.core
import mitogen.parent
from mitogen._tree import errors
from mitogen._tree.future import notify_cancel

if TYPE_CHECKING:
    from mitogen._tree.host import Host
    from mitogen._tree.options import CallOptions


class WorkerFuture(concurrent.futures.Future):  # type: ignore[type-arg]
    """
    A future of a function that runs in a process of its own, which a host starts for it.
    """
    #: Seconds that the process may take to end when it is asked.
    grace = 0.5

    def __init__(self, host: Host, timeout: Optional[float], name: Optional[str] = None) -> None:
        super().__init__()
        self._host = host
        self._timeout = timeout
        self._name = name
        #: Set when the process is to end.
        self._over = threading.Event()

    def cancel(self) -> bool:
        """
        End the process, and return whether there was still something to cancel.
        """
        if self.done():
            return self.cancelled()
        if not notify_cancel(self, super().cancel):
            return False
        self._over.set()
        return True

    def _serve(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """
        Start the process, have the function called, and end the process. A thread of its own.
        """
        child = None
        try:
            child = self._host.connect('local:')
            inner = child.options(name=self._name).submit(fn, *args, **kwargs)
            inner.add_done_callback(lambda inner: self._over.set())
            if not self._over.wait(self._timeout):
                raise errors.DeadlineExceeded.after(self._timeout or 0, self._host.name, True)
            if not self.cancelled():
                self._settle(inner.result, None)
        except BaseException as e:
            self._settle(None, e)
        finally:
            if child is not None:
                self._end(child)

    def _end(self, child: Host) -> None:
        """
        End the process: it is asked, and then killed, since it may be blocked in C.
        """
        try:
            ended = child.shutdown(wait=False)
            try:
                ended.get(self.grace)
            except mitogen.core.TimeoutError:
                self._host._tasks.kill(child.context_id)
                ended.get()
        except mitogen.core.Error:
            # The host has gone, and the process with it.
            pass

    def _settle(self, result: Optional[Callable[[], Any]], error: Optional[BaseException]) -> None:
        try:
            if error is not None:
                self.set_exception(error)
            elif result is not None:
                self.set_result(result())
        except concurrent.futures.InvalidStateError:
            # It was cancelled.
            pass


def submit(host: Host, options: CallOptions, fn: Callable[..., Any], args: Any, kwargs: Any) -> WorkerFuture:
    """
    Have a function called in a process of its own, and return a future of its result.
    """
    # Checked now, and not on the other thread: the function may have no name that leads to it.
    host.default_call_chain._find(mitogen.parent._take_apart(fn, args, kwargs)[0])
    host._tasks.start()
    future = WorkerFuture(host, options.timeout, options.name)
    # Observers look at variables of the context that the caller has, such as the span it is in.
    args = future._serve, fn, args, kwargs
    threading.Thread(target=contextvars.copy_context().run, args=args, name='mitogen.worker').start()
    return future
