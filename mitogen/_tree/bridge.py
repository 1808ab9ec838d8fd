# SPDX-License-Identifier: BSD-3-Clause
"""
The way from the broker to a loop of asyncio: answers, and functions to call there.

With the compiled core, the answers to all calls that a loop has under way to the hosts of one tree
arrive at one receiver, without Python. Its bell, a descriptor that the loop watches, rings once for
all that have come until the loop takes them. A call that was sent is a future of the loop. It is
also a coroutine, for those who insist on one; so a call needs no task of its own.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sys
import weakref
from typing import TYPE_CHECKING, Any, Callable, Optional

import mitogen.core
from mitogen._tree import errors, typed
from mitogen._tree.compiled import core as _native

if TYPE_CHECKING:
    from mitogen._tree.host import Host


def settle(future: asyncio.Future[Any], host: Host, msg: Any) -> None:
    """
    Give an answer to a future of the loop. The loop's thread.
    """
    if future.done():
        return
    try:
        future.set_result(msg.unpickle())
    except Exception as e:
        future.set_exception(errors.told(e, host))


class Call(asyncio.Future):  # type: ignore[type-arg]
    """
    A call that was sent. If it is cancelled, the function is cancelled on its host, too.
    """
    _steps: Any = None

    def __init__(self, loop: asyncio.AbstractEventLoop, answers: Answers, host: Host) -> None:
        super().__init__(loop=loop)
        # No cycle: once its loop is closed, the answers have nobody else.
        self._answers = answers.ref
        self.host = host
        self.handle: Optional[int] = None

    def cancel(self, msg: Any = None) -> bool:
        if not super().cancel(msg):
            return False
        answers = self._answers()
        if answers is not None:
            answers.forget(self)
        return True

    # A coroutine, too: a task that is made of one takes these steps.

    def send(self, value: Any) -> Any:
        """
        As a coroutine has it.
        """
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        """
        As a coroutine has it. The call ends.
        """
        self.cancel()
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps.throw(*error)

    def close(self) -> None:
        """
        As a coroutine has it. The call ends.
        """
        self.cancel()


def _settle_other(call: Call, msg: Any) -> None:
    settle(call, call.host, msg)


def _cancel(host: Host, handle: int) -> None:
    """
    Have a function end on its host.
    """
    host._tasks.cancel(handle, host._tasks.queue(host.tree.threads).number)


def _cancel_soon(router: Any, calls: list[tuple[Host, int]]) -> None:
    """
    Have the functions of calls end on their hosts, if nobody has got their answers. Any thread.
    """
    left = []
    for host, handle in calls:
        with contextlib.suppress(KeyError):
            router.del_handler(handle)
            left.append((host, handle))

    def cancel() -> None:
        for host, handle in left:
            _cancel(host, handle)
    if left:
        with contextlib.suppress(mitogen.core.Error):
            router.broker.defer(cancel)


class Answers:
    """
    The answers that one loop waits for from the hosts of one router. The loop's thread.

    :ivar pending: handle -> the call.
    """
    is_open = True

    def __init__(self, loop: asyncio.AbstractEventLoop, router: Any) -> None:
        self.pending: dict[int, Call] = {}
        self.ref = weakref.ref(self)
        self.receiver = mitogen.core.Receiver(router)
        self._router = router
        # Not all loops have one that can be seen. While other functions are ready, the loop does
        # not poll for an answer.
        self._ready = getattr(loop, '_ready', ())
        #: The loop will look for answers after what is ready now.
        self._is_due = False
        # The loop refers to this, by its reader.
        self._loop = weakref.ref(loop)
        self._bell = _native.bell(self.receiver)
        loop.add_reader(self._bell, self._settle)

    def ask(self, loop: asyncio.AbstractEventLoop, call: Call, msg: Any) -> None:
        """
        Send the message of a call.
        """
        call.handle = _native.ask(self.receiver, call.host, msg, self.pending, call)
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._glance)

    def forget(self, call: Call) -> None:
        """
        Have a call that was cancelled end on its host, unless it has ended.
        """
        if call.handle is None or self.pending.pop(call.handle, None) is None:
            return
        try:
            self._router.del_handler(call.handle)
        except KeyError:
            # The answer came meanwhile.
            return
        _cancel(call.host, call.handle)

    def _glance(self) -> None:
        self._is_due = False
        _native.glance(self.receiver, self.pending, _settle_other, not self._ready)

    def is_for(self, loop: asyncio.AbstractEventLoop) -> bool:
        """
        Return whether calls of a loop may be asked here.
        """
        return self.is_open and self._loop() is loop

    def _settle(self) -> None:
        _native.settle(self.receiver, self.pending, _settle_other, 'set_result', sys.maxsize)

    def close(self) -> None:
        """
        Give the answers that have come, and take no more. Repeatable.
        """
        loop = self._loop()
        if loop is not None and not loop.is_closed() and self._bell is not None:
            self._settle()
            loop.remove_reader(self._bell)
        self._bell = None
        self.is_open = False
        self.receiver.close()

    def close_soon(self) -> None:
        """
        Close it. Any thread.
        """
        loop = self._loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self.close)
        except RuntimeError:
            # The loop is closed, and nobody waits there any more.
            pass

    def __del__(self) -> None:
        # The loop is gone. Functions that still run for it end, too; a collection is no place to
        # send that.
        receiver = vars(self).get('receiver')
        if receiver is None:
            return
        receiver.close()
        _cancel_soon(self._router, [(call.host, handle) for handle, call in self.pending.items()])


class Bridge:
    """
    The answers and the functions to call of one loop.
    """
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._queue: collections.deque[tuple[Callable[..., object], Any]] = collections.deque()
        self._is_told = False
        # The loop refers only to the function that it will call, so the bridge can be freed.
        self._loop = weakref.ref(loop)
        # Their calls refer to the loop, which has them as long as it watches their bell.
        self._answers: weakref.WeakKeyDictionary[Any, weakref.ref[Answers]] = weakref.WeakKeyDictionary()

    def put(self, func: Callable[..., object], arg: Any) -> None:
        """
        Have a function called with an argument. Any thread. All that wait are called at one
        wake-up.
        """
        self._queue.append((func, arg))
        if self._is_told:
            return
        self._is_told = True
        loop = self._loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._drain)
        except RuntimeError:
            # The loop is closed, and nobody waits there any more.
            self._queue.clear()

    def _drain(self) -> None:
        # Before the items are taken: an item that is put from now on wakes the loop again.
        self._is_told = False
        queue = self._queue
        try:
            while queue:
                func, arg = queue.popleft()
                func(arg)
        except BaseException:
            # Ctrl-C, for example, ends the loop. Others may wait for the rest if it runs again.
            loop = self._loop()
            if queue and loop is not None:
                loop.call_soon(self._drain)
            raise

    def answers(self, loop: asyncio.AbstractEventLoop, router: Any) -> Optional[Answers]:
        """
        Return the answers of the hosts of a router, or None if the loop cannot watch a descriptor.
        """
        latest = self._answers.get(router)
        answers = latest and latest()
        if answers is None or not answers.is_open:
            try:
                answers = Answers(loop, router)
            except NotImplementedError:
                return None
            self._answers[router] = answers.ref
            _close_with(router, answers)
        return answers


_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = weakref.WeakKeyDictionary()


def _of(loop: asyncio.AbstractEventLoop) -> Bridge:
    found = _bridges.get(loop)
    if found is None:
        found = _bridges[loop] = Bridge(loop)
    return found


def bridge() -> Bridge:
    """
    Return the bridge of the running loop.
    """
    return _of(asyncio.get_running_loop())


def _close_with(router: Any, answers: Answers) -> None:
    """
    Have answers closed when the broker of their router exits.
    """
    everyone = vars(router).get('_answers_to_loops')
    if everyone is None:
        everyone = router._answers_to_loops = weakref.WeakSet()

        def close() -> None:
            for one in list(everyone):
                one.close_soon()
        mitogen.core.listen(router.broker, 'exit', close)
    everyone.add(answers)


def begin(host: Host, fn: Any, args: Any, kwargs: Any) -> Optional[Call]:
    """
    Send a call, and return the future of its result; or None if this is not the way for it: with
    observers, with a host that has to make its threads first, where no loop runs, and with the pure
    core.
    """
    loop = asyncio._get_running_loop()
    tree = host.router
    if _native is None or loop is None or tree._observers:
        return None
    tasks = host._tasks
    if tree.threads != 1 and not tasks.is_ready(tree.threads):
        return None
    latest = vars(host).get('_answers')
    answers: Optional[Answers] = latest and latest()
    if answers is None or not answers.is_for(loop):
        answers = _of(loop).answers(loop, tree)
        if answers is None:
            return None
        vars(host)['_answers'] = answers.ref
    call = Call(loop, answers, host)
    try:
        queue = tasks.queue(tree.threads)
        msg = typed.message(host, fn, args, kwargs)
        msg.handle = queue.handle
        tasks.await_lessons(queue.number)
        answers.ask(loop, call, msg)
    except Exception as e:
        call.set_exception(e)
    return call
