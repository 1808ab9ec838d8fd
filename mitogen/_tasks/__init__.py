# SPDX-License-Identifier: BSD-3-Clause
"""
Tasks: calls that can be cancelled. This is the side that runs them.

A task is a call as any other: its message goes to CALL_FUNCTION, or to the handle of a pool of
threads. Its name is the handle that its answer goes to, together with the context that asked. A
child that has called :func:`start` also has a handle for CANCEL, which takes such a name, and one
for KILL, which takes the id of a child that it has started.

The way in which a task is cancelled depends on what it does. One that has not begun is dropped. The
loop of a coroutine cancels it. On the main thread a signal ends even a sleep, and its handler
raises :class:`TaskCancelled`. In another thread Python raises that when it next runs a line of
Python.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import sys
import threading
import time

try:
    # The module of Python's own that stands above it takes a host longer to import than this one.
    import _signal as signal
except ImportError:
    # Python 2.
    import signal

import mitogen.core
from mitogen.core import Message, takes_econtext


#: Its default is to be ignored, so no process is ended by it that does not know it.
SIGNAL = signal.SIGURG

#: Threads that a pool has at most.
THREADS_MAX = 1000


class TaskCancelled(BaseException):
    """
    Raised in a function whose caller does not want its result any more.
    """
    pass


def _raise_in(ident, cls):
    """
    Have Python raise an exception in a thread, or with None take that back.
    """
    import ctypes
    what = None if cls is None else ctypes.py_object(cls)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), what)


class _Task(object):
    """
    A task that a thread has taken out of its queue.

    :ivar key: context and handle that the answer goes to.
    :ivar ident: the thread.
    :ivar open: whether its function runs: then the thread may be interrupted.
    :ivar cancelled: whether it is to end.
    :ivar struck: whether the exception was raised, or is about to be, for the latest cancellation.
    :ivar stop: what stops a coroutine, or None.
    :ivar wake: what ends a wait that is not Python, or None.
    """
    open = cancelled = struck = False
    stop = wake = None

    def __init__(self, key, ident):
        self.key = key
        self.ident = ident

    def run(self, func, args, kwargs):
        """
        Call the function, and run the coroutine that it returns if it is one.
        """
        try:
            self.open = True
            if self.cancelled and not self.struck:
                raise TaskCancelled()
            value = func(*args, **kwargs)
            if hasattr(value, 'cr_frame'):
                value = self._run_coroutine(value)
            return value
        finally:
            self.open = False

    def _run_coroutine(self, coroutine):
        import asyncio
        loop = asyncio.new_event_loop()
        try:
            asyncio.set_event_loop(loop)
            task = loop.create_task(coroutine)
            # From now on the loop is asked, and the thread is not interrupted.
            self.stop = lambda: loop.call_soon_threadsafe(task.cancel)
            if self.cancelled:
                task.cancel()
            try:
                return loop.run_until_complete(task)
            finally:
                self.stop = None
                loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


class _Pool(mitogen.core.Dispatcher):
    """
    Threads that serve a handle as the main thread serves CALL_FUNCTION.
    """
    def __init__(self, tasks, threads):
        # Not the base's: that takes the handles of the main thread.
        self.econtext = tasks.econtext
        self._error_by_chain_id = {}
        self._resolve = tasks.resolver(self)
        self.recv = mitogen.core.Receiver(
            self.econtext.router, policy=mitogen.core.has_parent_authority)
        self._tasks = tasks
        #: Held while a thread waits for a task and takes it, so that tasks are taken in order.
        self._taking = threading.Lock()
        try:
            for number in range(threads):
                thread = threading.Thread(target=self._work, name='mitogen.task.%d' % (number,))
                thread.daemon = True
                thread.start()
        except BaseException:
            # Those that have started end.
            self.recv.close()
            raise

    def _work(self):
        while True:
            try:
                with self._taking:
                    msg = self.recv.get()
                    self._tasks.claim(msg)
                self._serve(msg)
            except mitogen.core.ChannelError:
                return
            except TaskCancelled:
                # The exception came late: the task has ended.
                pass
            msg = None


class _Tasks(object):
    """
    The tasks of this process.
    """
    def __init__(self, econtext):
        self.econtext = econtext
        self._lock = threading.Lock()
        #: Key -> the tasks that were taken.
        self._taken = {}
        #: Keys of the tasks that are dropped when they are taken.
        self._dropped = set()
        #: The one that the main thread runs. The signal's handler, which must not wait for a lock,
        #: reads it.
        self._main_task = None
        self._main_ident = mitogen.core.thread.get_ident()
        self._pools = []
        self._signalled = self._handle_signal()
        dispatcher = econtext.dispatcher
        dispatcher._resolve = self.resolver(dispatcher)
        self.queues = [dispatcher.recv]
        self.cancel_handle = econtext.router.add_handler(
            self._on_cancel, policy=mitogen.core.has_parent_authority)
        self.kill_handle = econtext.router.add_handler(
            self._on_kill, policy=mitogen.core.has_parent_authority)

    def _handle_signal(self):
        """
        Return whether the signal is ours. Main thread.
        """
        if signal.getsignal(SIGNAL) != signal.SIG_DFL:
            return False
        signal.signal(SIGNAL, self._on_signal)
        return True

    def _on_signal(self, _number, _frame):
        task = self._main_task
        if task is not None and task.open and task.cancelled and not task.struck:
            task.struck = True
            if task.stop is None:
                raise TaskCancelled()

    def add_pool(self, threads):
        """
        Start threads, and return (number of the queue, handle).
        """
        pool = _Pool(self, max(1, min(int(threads), THREADS_MAX)))
        self._pools.append(pool)
        self.queues.append(pool.recv)
        return len(self.queues) - 1, pool.recv.handle

    # A task, from its queue to its end.

    def claim(self, msg):
        """
        Note that this thread has taken a task. Repeatable.
        """
        key = msg.src_id, msg.reply_to
        if not msg.reply_to or key in self._taken:
            return
        task = _Task(key, mitogen.core.thread.get_ident())
        with self._lock:
            self._taken[key] = task
            if key in self._dropped:
                self._dropped.discard(key)
                task.cancelled = True
        if task.ident == self._main_ident:
            self._main_task = task

    def resolver(self, dispatcher):
        """
        Return a `_resolve` for a dispatcher, which makes a call a task.
        """
        find = mitogen.core.Dispatcher._resolve

        def resolve(msg):
            self.claim(msg)
            task = self._taken.get((msg.src_id, msg.reply_to))
            try:
                chain_id, func, args, kwargs = find(dispatcher, msg)
            except BaseException:
                self._release(task)
                raise
            if task is None:
                return chain_id, func, args, kwargs
            if func is None:
                # The function is not called: an earlier call of its chain has failed.
                self._release(task)
                return chain_id, func, args, kwargs
            return chain_id, lambda *args, **kwargs: self._run(task, func, args, kwargs), args, kwargs
        return resolve

    def _run(self, task, func, args, kwargs):
        try:
            return task.run(func, args, kwargs)
        finally:
            self._release(task)

    def _release(self, task):
        """
        Forget a task that has ended. Nothing interrupts its thread any more when this returns.
        """
        while task is not None:
            try:
                task.open = False
                with self._lock:
                    if self._taken.pop(task.key, None) and task.struck and task.ident != self._main_ident:
                        _raise_in(task.ident, None)
                return
            except TaskCancelled:
                # It came late.
                pass

    # --- the early end of a task ---

    def _on_cancel(self, msg):
        """
        Handle CANCEL: handle of the answer, number of the queue, and whether to let a task go on
        that has begun. The answer is whether it had. Broker thread.
        """
        if msg.is_dead:
            return
        handle, queue, gently = msg.unpickle()
        key = msg.src_id, handle
        if not isinstance(handle, int) or queue not in range(len(self.queues)):
            raise ValueError('bad CANCEL')
        with self._lock:
            task = self._taken.get(key)
            if task is None:
                # The task waits in the queue, or has ended. Either way this note is gone when the
                # queue has come to the message that is sent now.
                self._dropped.add(key)
                self._send_forget(self.queues[queue], key)
            elif not gently:
                task.cancelled, task.struck = True, False
                self._interrupt(task)
        if msg.reply_to:
            msg.reply(task is not None)

    def _on_kill(self, msg):
        """
        Handle KILL: end the process of a child of ours that does not end by itself. Broker thread.
        """
        if msg.is_dead:
            return
        context_id = msg.unpickle()
        stream = self.econtext.router.stream_by_id(context_id)
        conn = getattr(stream, 'conn', None)
        if conn is not None and conn.proc is not None and stream.protocol.remote_id == context_id:
            conn.proc.kill()

    def _send_forget(self, queue, key):
        queue._on_receive(Message.pickled(
            (None, __name__, None, u'_forget', key, mitogen.core.Kwargs({})), handle=mitogen.core.CALL_FUNCTION))

    def _interrupt(self, task):
        stop = task.stop
        if stop is not None:
            try:
                stop()
            except RuntimeError:
                # The loop was closed just now.
                pass
        elif task.ident == self._main_ident and self._signalled:
            # A task that has not begun looks at `cancelled` when it begins.
            if task.open:
                thread = threading.Thread(target=self._keep_signalling, args=(task,), name='mitogen.interrupt')
                thread.daemon = True
                thread.start()
        elif task.open:
            task.struck = True
            _raise_in(task.ident, TaskCancelled)
        if task.wake is not None:
            task.wake()

    def _keep_signalling(self, task):
        """
        Send the signal until its handler has met the task. The system ends no wait for a signal
        that came just before.
        """
        seconds = 0.002
        while task.open and task.cancelled and not task.struck:
            signal.pthread_kill(task.ident, SIGNAL)
            time.sleep(seconds)
            seconds = min(0.05, 2 * seconds)

    def current(self):
        """
        Return the task that this thread runs.
        """
        ident = mitogen.core.thread.get_ident()
        with self._lock:
            return [task for task in self._taken.values() if task.ident == ident][0]


#: The :class:`_Tasks` of this process, once there is one.
_tasks = None


def _forget(src_id, handle):
    _tasks._dropped.discard((src_id, handle))


def _check_version():
    if sys.version_info < (3, 6):
        raise mitogen.core.Error('Tasks need Python 3.6, and this is %d.%d. Plain calls work.' % sys.version_info[:2])


def current():
    """
    Return the task that this thread runs.

    :raises Error: this Python is too old for tasks.
    """
    _check_version()
    return _tasks.current()


@takes_econtext
def start(econtext):
    """
    Make calls tasks from now on, and return the handles for CANCEL and KILL. Main thread;
    repeatable.
    """
    global _tasks
    _check_version()
    if _tasks is None:
        _tasks = _Tasks(econtext)
    return _tasks.cancel_handle, _tasks.kill_handle


@takes_econtext
def start_pool(threads, econtext):
    """
    Start threads that run tasks at the same time, and return the number of their queue and their
    handle.
    """
    start(econtext=econtext)
    return _tasks.add_pool(threads)


def stop_pool(number):
    """
    End the threads of a queue. Those that run a task end after it.
    """
    _tasks.queues[number].close()


# Streams.

class _Window(object):
    """
    How many items, and bytes, may be on their way. The reader says how many it has taken,
    altogether.

    :param recv: receiver of what the reader says.
    """
    def __init__(self, recv, items, size):
        self._recv = recv
        self._items, self._size = items, size
        self._sizes = mitogen.core._deque()
        self._bytes = self._taken = 0

    def wait(self, size):
        """
        Wait until there is room for an item of that many bytes. The reader acknowledges each half
        of a window at the latest. While less than half is unacknowledged, no word of the reader may
        be on its way, so even an item that is larger than the room is sent.
        """
        while self._sizes and (len(self._sizes) >= self._items or
                               self._bytes + size > self._size <= 2 * self._bytes):
            self._note(self._recv.get().unpickle())
        self._sizes.append(size)
        self._bytes += size

    def _note(self, taken):
        if not isinstance(taken, int) or not self._taken <= taken <= self._taken + len(self._sizes):
            raise mitogen.core.StreamError('the reader of a stream acknowledged items that were not sent')
        while self._taken < taken:
            self._bytes -= self._sizes.popleft()
            self._taken += 1


def _find(econtext, module, klass, name):
    found = mitogen.core.import_module(module)
    for part in (klass.split('.') if klass else []) + [name]:
        found = getattr(found, part)
    own = {}
    if getattr(found, 'mitogen_takes_econtext', None):
        own['econtext'] = econtext
    if getattr(found, 'mitogen_takes_router', None):
        own['router'] = econtext.router
    return found, own


@takes_econtext
def stream(names, args, kwargs, sender, items, size, econtext):
    """
    Send what a generator yields, as it yields it. The first message is the handle that the reader
    acknowledges by.

    :param names: module, class or None, and name of the function that returns it.
    :param sender: where items go.
    :param int items: how many may be on their way.
    :param int size: how many bytes may.
    """
    func, own = _find(econtext, *names)
    recv = mitogen.core.Receiver(econtext.router, policy=mitogen.core.has_parent_authority)
    try:
        current().wake = recv.close
        sender.send(recv.handle)
        iterator = iter(func(*args, **dict(kwargs, **own)))
        try:
            _send_items(iterator, sender, _Window(recv, items, size))
        finally:
            close = getattr(iterator, 'close', None)
            if close:
                close()
    finally:
        recv.close()


def _send_items(iterator, sender, window):
    send, handle = sender.context.send, sender.dst_handle
    for item in iterator:
        msg = Message.pickled(item, handle=handle)
        window.wait(len(msg.data))
        send(msg)
