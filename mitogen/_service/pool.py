# SPDX-License-Identifier: BSD-3-Clause
"""
Pool: the threads of a process that obey calls of its services.
"""

from __future__ import absolute_import  # house

import sys  # house
import threading  # house

import mitogen.core  # house
import mitogen.select  # house

from mitogen.service import _Admission, _arguments_of, _CallQueue, _ComingCalls, _log_refusal, _may_log, _reply  # house
from mitogen.service import _request_of, _STOCK_INVOKES, Activator, Error, get_thread_name, LOG  # house


#: id() of the select of a service -> the pools that have that service. The
#: first one serves the select. Guarded by the lock.
_pools_by_select = {}
_select_lock = threading.Lock()


def _forget_selects():
    """
    In a child made by fork: the threads of the pools do not exist there, and
    one of them may have held the lock.
    """
    global _select_lock
    _select_lock = threading.Lock()
    _pools_by_select.clear()


mitogen.core._fork_hooks.append(_forget_selects)


class _PoolSelect(mitogen.select.Select):
    """
    A select that remembers of which member select an event is. A wake-up of a
    receiver is an event without a message: those are taken in order.
    """
    def _take(self, waker):
        if not isinstance(waker, mitogen.core.Receiver):
            return super(_PoolSelect, self)._take(waker)
        event = mitogen.select.Event()
        event.source = waker
        return event

    def _take_nested(self, inner):
        try:
            event = super(_PoolSelect, self)._take_nested(inner)
        except mitogen.core.ChannelError:
            # A receiver of the service was closed, or told that nothing will
            # come. That is no event.
            LOG.debug('%r: %r', inner, sys.exc_info()[1])
            return None
        if event is not None:
            event.select = inner
        return event


class Pool(object):
    """
    Threads that obey service calls. A pool has to be stopped before the
    interpreter can exit, unless its broker ends before. All methods may be
    called from any thread. But a method that waits for the threads to end must
    not be called on one of them.

    :param mitogen.core.Router router:
    :param services:
        Iterable of :class:`Service`.
    :param int size:
        How many threads.
    :param bool overwrite:
        Take the handle from the pool that has it.
    :param mitogen.core.Receiver recv:
        Receiver that calls came to so far.
    :raises mitogen.core.Error:
        The router has a pool already.
    :raises mitogen.service.Error:
        Two services go by the same name.
    """
    activator_class = Activator

    #: True once :meth:`stop` was called.
    closed = False

    def __init__(self, router, services=(), size=1, overwrite=False,
                 recv=None):
        # Held while a service is loaded, which may load others.
        self._activation_lock = threading.RLock()
        # Held by a thread that takes calls from the receiver, until they are
        # queued: other threads would find none, or queue later ones first.
        self._queue_lock = threading.Lock()
        self._activator = self.activator_class()
        self.router = router
        self._lock = threading.Lock()
        self._services = []          # in the order of add(); guarded by _lock
        self._invoker_by_name = {}   # writes guarded by _lock
        self._service_by_select = {} # id() -> service; writes guarded by _lock
        self._selects = []           # of services; guarded by _lock
        self._threads = []

        self._open_select(overwrite, recv)
        try:
            for service in services:
                self.add(service)
        except Exception:
            self._close()
            raise
        try:
            self._start_threads(size)
        except RuntimeError:
            # The system gives no more threads.
            self._close()
            raise

        # Without a broker nothing comes any more.
        broker = router.broker
        mitogen.core.listen(broker, 'exit', self._close)
        if getattr(broker, '_exitted', False):
            self._close()
        LOG.debug('%r: made', self)

    def _open_select(self, overwrite, recv):
        """
        Take the handle, and make the select that the threads wait at.

        :raises mitogen.core.Error:
            The router has a pool already.
        """
        self._coming = _ComingCalls()
        self._calls = _CallQueue(self._wake, self._coming)
        self._receiver = mitogen.core.Receiver(
            self.router, mitogen.core.CALL_SERVICE, overwrite=overwrite,
            policy=_Admission(self))
        self.router._service_pool = self
        self._func_latch = mitogen.core.Latch()
        self._select = _PoolSelect(oneshot=False)
        # The threads are all alike: the one that slept last reads the next
        # call itself. The pure core takes them in turn.
        self._select._latch._newest_first = True
        self._select.add(self._receiver)
        self._select.add(self._func_latch)
        if recv is not None:
            recv.notify = None
            self._select.add(recv)

    def _start_threads(self, size):
        for i in range(size):
            thread = threading.Thread(
                name='mitogen.Pool.%04x.%d' % (id(self) & 0xffff, i),
                target=mitogen.core._profile_hook,
                args=('mitogen.service.pool', self._worker_main),
            )
            # By default a thread would inherit this from the current one.
            thread.daemon = False
            thread.start()
            self._threads.append(thread)

    def __repr__(self):
        return 'Pool(%04x, size=%d, closed=%r)' % (
            id(self) & 0xffff, len(self._threads), self.closed)

    @property
    def size(self):
        """
        How many threads there are.
        """
        return len(self._threads)

    def add(self, service):
        """
        Have calls for a service obeyed.

        :raises mitogen.service.Error:
            There is a service of that name.
        """
        name = service.name()
        with self._lock:
            if name in self._invoker_by_name:
                raise Error('there is a service called %r already' % (name,))
            select = getattr(service, 'select', None)
            if select is not None and not self.closed:
                self._service_by_select[id(select)] = service
                self._serve_select(select)
                self._selects.append(select)
            self._services.append(service)
            self._invoker_by_name[name] = service.invoker_class(
                service=service)

    def _serve_select(self, select):
        """
        Serve the select of a service, now or once the pools are closed that
        had it before. It can be part of one only.
        """
        with _select_lock:
            pools = _pools_by_select.get(id(select), [])
            if not pools or self in pools:
                self._select.add(select)
            _pools_by_select[id(select)] = pools + [self]

    def _hand_select_on(self, select):
        """
        Leave the select of a service to the next pool that has it.
        """
        with _select_lock:
            pools = _pools_by_select.pop(id(select), [])
            rest = [pool for pool in pools if pool is not self]
            if rest:
                _pools_by_select[id(select)] = rest
                if rest[0] is not pools[0]:
                    try:
                        rest[0]._select.add(select)
                    except mitogen.core.LatchError:
                        # The other pool is being closed, and will do so
                        # itself.
                        LOG.debug('%r: closed', rest[0])

    def get_invoker(self, name, msg):
        """
        Return the invoker of a service, which is loaded if need be.

        :param name:
            Text.
        :param msg:
            The call; :data:`None` if any service may be loaded.
        :raises mitogen.core.CallError:
            It is not loaded, and `msg` does not permit it.
        """
        invoker = self._invoker_by_name.get(name)
        if invoker is not None:
            return invoker
        if msg is not None and type(self._activator) is Activator:
            # Checked before the lock is taken, which is held for the time of
            # an import.
            self._activator._check(name, msg)
        with self._activation_lock:
            if name not in self._invoker_by_name:
                service = self._activator.activate(self, name, msg)
                with self._lock:
                    # The service may have another name of its own.
                    self._invoker_by_name.setdefault(
                        name, self._invoker_by_name[service.name()])
            return self._invoker_by_name[name]

    def get_service(self, name):
        """
        Return a service of this pool, which is loaded if need be.
        """
        return self.get_invoker(name, None).service

    def defer(self, func, *args, **kwargs):
        """
        Have a function called on one of the threads. Its exceptions are logged.

        :raises mitogen.core.LatchError:
            The pool was stopped.
        """
        self._func_latch.put((func, args, kwargs))

    def _stop_with_broker(self):
        mitogen.core.listen(self.router.broker, 'shutdown',
                            self._on_broker_shutdown)

    def _on_broker_shutdown(self):
        # Do not join here: a thread of the pool may wait for this one, the
        # broker thread.
        self.stop(join=False)
        # A part of the grace period only: our children are not told before, and
        # may have pools of their own.
        self._join(mitogen.core.now() +
                   self.router.broker.shutdown_timeout / 3)

    def _close(self):
        """
        Have the threads end, without waiting for them.
        """
        with self._lock:
            if self.closed:
                return
            self.closed = True
        router = self.router
        if getattr(router, '_service_pool', None) is self:
            router._service_pool = None
            self._receiver.close()
        else:
            # The handle belongs to another pool by now.
            self._receiver.handle = None
            self._receiver._latch.close()
        self._func_latch.close()
        self._select.close()
        for select in self._selects:
            self._hand_select_on(select)
        for signal, func in (('exit', self._close),
                             ('shutdown', self._on_broker_shutdown)):
            try:
                mitogen.core.unlisten(router.broker, signal, func)
            except ValueError:
                # Not listened to.
                pass

    def stop(self, join=True):
        """
        Give the handle up and end the threads, each after the call it is at.
        May be repeated.

        :param bool join:
            Wait for that, see :meth:`join`.
        """
        self._close()
        if join:
            self.join()

    def join(self):
        """
        Wait for the threads to end, then tell the services.
        """
        self._join(None)

    def _join(self, deadline):
        for thread in self._threads:
            if thread is threading.current_thread():
                continue
            if deadline is None:
                thread.join()
                continue
            thread.join(max(0.0, deadline - mitogen.core.now()))
            if thread.is_alive():
                LOG.error('%r: thread %s is still busy', self, thread.name)
        for service in list(self._services):
            try:
                service.on_shutdown()
            except Exception:
                LOG.exception('%r: on_shutdown() failed', service)

    #: Two more names of `stop`.
    shutdown = close = stop

    def _worker_main(self):
        """
        Run by each thread: obey calls until the pool is closed.
        """
        while not self.closed:
            event = None
            try:
                event = self._select.get_event()
            except mitogen.core.ChannelError:
                # A dead message was sent to us; or the receiver was closed,
                # and so is the pool.
                LOG.debug('%r: %r', self, sys.exc_info()[1])
                continue
            except (mitogen.core.LatchError, mitogen.select.Error):
                # The select was closed, before or after all members were
                # removed from it.
                break
            try:
                self._on_event(event)
            except BaseException:
                # Also SystemExit, which must not cost a thread.
                LOG.exception('%r: an event could not be handled', self)
        LOG.debug('%r: %s ends', self, get_thread_name())

    def _on_event(self, event):
        select = getattr(event, 'select', None)
        if select is not None:
            self._service_by_select[id(select)].on_message(event)
        elif event.source is self._func_latch:
            func, args, kwargs = event.data
            func(*args, **kwargs)
        else:
            self._on_call(event.source)

    def _on_call(self, receiver):
        """
        A call has come, or another thread has queued it already. If more have,
        queue all: the other threads may be busy, and peers are to take turns.
        """
        with self._queue_lock:
            msg = self._next_of(receiver)
            at_once = msg is not None and self._passes(receiver, msg)
        if at_once:
            self._on_service_call(msg)
        else:
            self._serve_next()

    def _passes(self, receiver, msg):
        """
        Return whether a call may be obeyed at once. Otherwise queue it, and all
        that came after it. With _queue_lock.
        """
        more = self._next_of(receiver)
        if more is None and self._calls.passes(msg):
            return True
        while msg is not None:
            self._calls.add(msg)
            msg, more = more, more and self._next_of(receiver)
        return False

    def _usable(self, msg):
        if msg.router is None:
            # The call is from this process. An object in it may need a router
            # to send by.
            msg.router = self.router
        return msg

    def _next_of(self, receiver):
        """
        Return the next call that a receiver has, :data:`None` if there is none.
        """
        try:
            while receiver.size():
                msg = receiver.get(block=False, throw_dead=False)
                msg.receiver = receiver
                if not msg.is_dead:
                    return self._usable(msg)
        except (mitogen.core.TimeoutError, mitogen.core.LatchError,
                mitogen.core.ChannelError):
            # Another thread was quicker, or the pool ends.
            pass

    def _serve_next(self):
        msg = self._calls.take()
        if msg is not None:
            self._on_service_call(msg)

    def _wake(self, count):
        """
        Wake this many threads to look for a call that may be obeyed.
        """
        for _ in range(count):
            self._defer_quietly(self._serve_next)

    def _defer_quietly(self, func):
        try:
            self.defer(func)
        except mitogen.core.LatchError:
            LOG.debug('%r: closed', self)

    def _on_service_call(self, msg):
        service_name = method_name = None
        try:
            service_name, method_name, kwargs = _request_of(msg)
            invoker = self.get_invoker(service_name, msg)
            if kwargs is None and type(invoker).invoke not in _STOCK_INVOKES:
                # An invoker of the program wants them, and asks itself.
                kwargs = _arguments_of(msg)
            if not getattr(invoker, '_keeps_order', False):
                self._coming.has_come(msg)
            invoker.invoke(method_name, kwargs, msg)
        except mitogen.core.CallError:
            error = sys.exc_info()[1]
            _log_refusal(service_name, method_name, error, msg)
            _reply(msg, error)
        except BaseException:
            # Also SystemExit: the caller waits for an answer.
            error = mitogen.core.CallError(sys.exc_info()[1])
            tell, more = _may_log(msg)
            if tell:
                LOG.exception('%r: the call of %r of %r failed%s', self,
                              method_name, service_name, more)
            _reply(msg, error)
        finally:
            self._coming.has_come(msg)
