# SPDX-License-Identifier: BSD-3-Clause
"""
Services: objects whose methods other contexts may call, on threads of a pool.

A call is one message to the handle `CALL_SERVICE`. In a master somebody makes
a :class:`Pool` for it. A child makes one when the first call arrives, and
loads the services that its parents ask for.

Each process serves one pool's handle. Whoever can reach the process can send
to it, so each method says by a policy who may call it.

Threads: service methods run on the threads of the pool, any number at once
unless the service's invoker says otherwise. Nothing here waits on the broker
thread, except that the pool is stopped there at shutdown.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import collections
import os
import stat
import sys
import threading

import mitogen
import mitogen.core
import mitogen.select

from mitogen.core import to_text


LOG = mitogen.core.LazyLogger('mitogen.service')

#: The pool of this process, the id of that process (a fork has a copy that is
#: of no use), and the lock to make one under.
_pool = None
_pool_pid = None
_pool_lock = threading.Lock()

#: Whether :func:`_keep_heap` has done its work.
_heap_kept = False


#: id() of the select of a service -> the pools that have that service. The
#: first one serves the select. Guarded by the lock.
_pools_by_select = {}
_select_lock = threading.Lock()


def _replace_locks():
    global _pool_lock, _select_lock
    _pool_lock = threading.Lock()
    _select_lock = threading.Lock()
    _pools_by_select.clear()


mitogen.core._fork_hooks.append(_replace_locks)


class Error(Exception):
    """
    A service or a pool was set up wrongly, or asked for the impossible.
    """
    pass


#
# Entry points.
#

@mitogen.core.takes_router
def get_or_create_pool(size=None, router=None, context=None):
    """
    Return the pool of this process, made now if there is none that runs. It is
    stopped when its broker shuts down. Any thread.

    :param int size:
        How many threads a new one gets; 2 if :data:`None`.
    :param mitogen.core.Router router:
        For a new one; if :data:`None`, that of `context`, or else that of the
        pool that was stopped.
    :raises ValueError:
        A pool must be made, and there is no router.
    """
    global _pool, _pool_pid
    with _pool_lock:
        pool = _pool
        if _pool_pid != os.getpid():
            pool = None
        if pool is not None and not pool.closed:
            return pool

        if router is None and context is not None:
            router = context.router
        if router is None and pool is not None:
            router = pool.router
        if router is None:
            raise ValueError('to make a pool, a router or a context is needed')
        _pool = Pool(
            router,
            size=size or 2,
            overwrite=True,
            # What arrived before there was a pool.
            recv=mitogen.core.Dispatcher._service_recv,
        )
        _pool._stop_with_broker()
        _pool_pid = os.getpid()
        return _pool


def _name_of(service):
    """
    Return the name of a service, given by text, UTF-8 bytes, or its class.
    """
    if isinstance(service, mitogen.core.AnyTextType):
        return to_text(service)
    return to_text(service.name())


def call(service_name, method_name, call_context=None, **kwargs):
    """
    Call a method of a service, here or elsewhere, and return its result.

    Here, that is a plain call on this thread: whoever runs code in this
    process may do anything anyway.

    :param service_name:
        Text, or an object with a method `name`, like the class.
    :param mitogen.core.Context call_context:
        Where; :data:`None` for this process.
    """
    if call_context is not None:
        return call_context.call_service(service_name, method_name, **kwargs)
    pool = get_or_create_pool(context=kwargs.get('context'))
    service = pool.get_service(_name_of(service_name))
    return getattr(service, method_name)(**kwargs)


#
# Declarations.
#

def arg_spec(spec):
    """
    Decorator: before a remote call of the method, check its arguments.

    :param dict spec:
        Name of each required argument -> type, or tuple of types.
    """
    def mark(func):
        func.mitogen_service__arg_spec = spec
        return func
    return mark


def expose(policy):
    """
    Decorator: let other contexts call the method if `policy` agrees. May be
    stacked; then all must agree.

    :param Policy policy:
    """
    def mark(func):
        others = getattr(func, 'mitogen_service__policies', [])
        func.mitogen_service__policies = [policy] + others
        return func
    return mark


def no_reply():
    """
    Decorator: answer nothing to a remote call of the method. A method that
    takes an argument `msg` may still answer that by itself.
    """
    def mark(func):
        func.mitogen_service__no_reply = True
        return func
    return mark


def validate_arg_spec(spec, args):
    """
    Compare arguments with a dict as for :func:`arg_spec`.

    :raises mitogen.core.CallError:
        One is missing, or is of another type.
    """
    for name in spec:
        if name not in args:
            raise mitogen.core.CallError('argument %r is missing', name)
        value = args[name]
        if not isinstance(value, spec[name]):
            raise mitogen.core.CallError(
                'argument %r is of type %r, not %r',
                name, type(value), spec[name])


def get_thread_name():
    """
    Return the name of the current thread.
    """
    return threading.current_thread().name


def func_code(func):
    """
    Return the code object of a function or method.
    """
    return func.__code__


def func_name(func):
    """
    Return the name of a function or method.
    """
    return func.__name__


def _has_parameter(func, name):
    """
    Tell whether a function declares a parameter of that name.
    """
    code = getattr(func, '__code__', None)
    if code is None:
        return False
    count = code.co_argcount + getattr(code, 'co_kwonlyargcount', 0)
    return name in code.co_varnames[:count]


class Policy(object):
    """
    Decides who may call a method.
    """
    def is_authorized(self, service, msg):
        """
        Return true if the message, a call, may be obeyed. Pool thread.

        :param Service service:
        :param mitogen.core.Message msg:
        """
        raise NotImplementedError()


class AllowAny(Policy):
    """
    Every context may call.
    """
    def is_authorized(self, service, msg):
        return True


class AllowParents(Policy):
    """
    Whoever acts with the authority of this context, or of one that it descends
    from, may call.
    """
    def is_authorized(self, service, msg):
        return mitogen.core.has_parent_authority(msg)


#
# Invokers: how calls become calls of methods.
#

def _log_refusal(service_name, method_name, error):
    LOG.warning('%s: the call of %s failed: %s',
                service_name, method_name, error)


def _reply(msg, value):
    """
    Answer a call, with an error if `value` cannot be sent.
    """
    try:
        try:
            msg.reply(value)
        except mitogen.core.Error:
            raise
        except Exception:
            LOG.exception('the result of a service call cannot be sent')
            msg.reply(mitogen.core.CallError(sys.exc_info()[1]))
    except mitogen.core.Error:
        # Raised for one reason only, and then nobody waits any more.
        LOG.debug('the broker exited during a service call')


class Invoker(object):
    """
    Runs the methods of one service, on the thread that the pool calls
    :meth:`invoke` on: several at a time.

    :param Service service:
    """
    unauthorized_msg = 'the caller may not use method %r of service %r'

    def __init__(self, service):
        self.service = service

    def __repr__(self):
        return '%s(%s)' % (type(self).__name__, self.service)

    def _checked_method(self, method_name, kwargs, msg):
        """
        Return the method that a call asks for, if all is well.

        :raises mitogen.core.CallError:
        """
        service = self.service
        method = getattr(service, method_name, None)
        policies = getattr(method, 'mitogen_service__policies', ())
        refusal = None
        if method is None:
            refusal = 'there is no method %r in service %r'
        elif not policies:
            refusal = 'only its own process may use method %r of service %r'
        elif msg is not None and not all([
                policy.is_authorized(service, msg) for policy in policies]):
            refusal = self.unauthorized_msg
        if refusal:
            raise mitogen.core.CallError(refusal, method_name, service.name())
        validate_arg_spec(getattr(method, 'mitogen_service__arg_spec', {}),
                          kwargs)
        return method

    def _run(self, method, kwargs, msg):
        """
        Call a method and return its result, or :data:`Service.NO_REPLY`.
        """
        if msg is not None and _has_parameter(method, 'msg'):
            kwargs['msg'] = msg
        if not getattr(method, 'mitogen_service__no_reply', False):
            return method(**kwargs)
        try:
            method(**kwargs)
        except Exception:
            LOG.exception('%r: %s failed, and its caller wants no reply',
                          self, func_name(method))
        return Service.NO_REPLY

    def invoke(self, method_name, kwargs, msg):
        """
        Obey one call, and answer it.

        :param method_name: text.
        :param dict kwargs: arguments of the method.
        :param msg:
            Message to answer; if :data:`None`, nothing is answered, and no
            policy asked.
        :returns:
            What was answered, or :data:`Service.NO_REPLY`.
        :raises Exception:
            What the method raised, or :class:`mitogen.core.CallError` if it
            was not called. Nothing has been answered then.
        """
        method = self._checked_method(method_name, kwargs, msg)
        result = self._run(method, kwargs, msg)
        if msg is not None and result is not Service.NO_REPLY:
            msg.reply(result)
        return result


class SerializedInvoker(Invoker):
    """
    Runs one call of the service at a time, in the order of arrival, and on one
    thread of the pool for as long as there are more.
    """
    def __init__(self, **kwargs):
        super(SerializedInvoker, self).__init__(**kwargs)
        self._lock = threading.Lock()
        self._calls = collections.deque()  # guarded by _lock
        self._draining = False             # guarded by _lock

    def invoke(self, method_name, kwargs, msg):
        """
        Obey a call now, or leave it to the thread that obeys another one.
        """
        with self._lock:
            self._calls.append((method_name, kwargs, msg))
            mine = not self._draining
            self._draining = True
        while mine:
            with self._lock:
                if not self._calls:
                    self._draining = mine = False
                    break
                call_ = self._calls.popleft()
            self._invoke_one(*call_)
        return Service.NO_REPLY

    def _invoke_one(self, method_name, kwargs, msg):
        try:
            super(SerializedInvoker, self).invoke(method_name, kwargs, msg)
            return
        except mitogen.core.CallError:
            answer = sys.exc_info()[1]
            _log_refusal(self.service.name(), method_name, answer)
        except BaseException:
            # Also SystemExit: the calls behind this one must go on.
            LOG.exception('%r: method %r failed', self, method_name)
            answer = mitogen.core.Message.dead(
                'method %s of service %s failed, see the log of its context'
                % (method_name, self.service.name()))
        if msg is not None:
            _reply(msg, answer)


def _revealed(obj):
    """
    Return `obj` so that its representation shows everything in it, and shows
    the same for what is equal.
    """
    if isinstance(obj, dict):
        return dict((key, _revealed(obj[key])) for key in obj)
    if isinstance(obj, (list, tuple)):
        return type(obj)([_revealed(item) for item in obj])
    if isinstance(obj, mitogen.core.Blob):
        return mitogen.core.BytesType(obj)
    if isinstance(obj, mitogen.core.Secret):
        return mitogen.core.UnicodeType(obj)
    return obj


class DeduplicatingInvoker(Invoker):
    """
    Runs a method once for all calls that ask for the same, and keeps the
    result, or the error, for ever. Calls that come while it runs wait for it
    without a thread. The method is not given an argument `msg`.
    """
    def __init__(self, service):
        super(DeduplicatingInvoker, self).__init__(service)
        self._lock = threading.Lock()
        self._results = {}  # key -> result; guarded by _lock
        self._waiters = {}  # key -> calls to be answered; guarded by _lock

    def key_from_request(self, method_name, kwargs):
        """
        Return something hashable that is equal for calls that ask for the
        same.
        """
        import pprint
        return pprint.pformat((method_name, _revealed(kwargs)))

    def get_response(self, args):
        """
        Not used.
        """
        raise NotImplementedError()

    def _compute(self, method, kwargs):
        try:
            return self._run(method, kwargs, None)
        except mitogen.core.CallError:
            error = sys.exc_info()[1]
            _log_refusal(self.service.name(), func_name(method), error)
            return error
        except BaseException:
            # Also SystemExit: the calls that wait must be answered.
            LOG.exception('%r: %s failed', self, func_name(method))
            return mitogen.core.CallError(sys.exc_info()[1])

    def invoke(self, method_name, kwargs, msg):
        """
        Obey a call, or answer it with what an earlier one came to.
        """
        # First of all: the result of another call is not for everybody.
        method = self._checked_method(method_name, kwargs, msg)
        key = self.key_from_request(method_name, kwargs)
        with self._lock:
            known = key in self._results
            if known:
                result = self._results[key]
                waiters = [msg]
            elif key in self._waiters:
                self._waiters[key].append(msg)
                return Service.NO_REPLY
            else:
                self._waiters[key] = [msg]

        if not known:
            result = self._compute(method, kwargs)
            with self._lock:
                self._results[key] = result
                waiters = self._waiters.pop(key)
        for waiter in waiters:
            if waiter is not None and result is not Service.NO_REPLY:
                _reply(waiter, result)
        return Service.NO_REPLY if msg is not None else result


class Activator(object):
    """
    Loads the services that callers ask for. Pool threads, one at a time.
    """
    not_active_msg = (
        'service %r is not active, and the caller may not have it loaded'
    )

    def is_permitted(self, mod_name, class_name, msg):
        """
        Return true if the sender of `msg` may have a class loaded.
        """
        return mitogen.core.has_parent_authority(msg)

    def activate(self, pool, service_name, msg):
        """
        Load a service, add it to the pool and return it.

        :param Pool pool:
        :param service_name:
            Text, names of module and class joined by a dot.
        :param msg:
            The call, or :data:`None` if everything is permitted.
        :raises mitogen.core.CallError:
            Not permitted.
        """
        mod_name, _, class_name = mitogen.core.str_rpartition(
            service_name, '.')
        if msg is not None and \
                not self.is_permitted(mod_name, class_name, msg):
            raise mitogen.core.CallError(self.not_active_msg, service_name)
        if not mod_name:
            raise mitogen.core.CallError(
                'a service is called by module and class, not %r',
                service_name)
        module = mitogen.core.import_module(str(mod_name))
        service = getattr(module, class_name)(router=pool.router)
        pool.add(service)
        return service


class Service(object):
    """
    Base of services. Construct it on any thread and give it to
    :meth:`Pool.add`, or leave both to the pool.

    :param mitogen.core.Router router:
    """
    #: From an invoker: nothing is to be answered.
    NO_REPLY = type('NO_REPLY', (object,), {
        '__repr__': lambda self: 'Service.NO_REPLY',
    })()

    #: What runs the methods.
    invoker_class = Invoker

    def __init__(self, router):
        self.router = router
        #: Add receivers and latches here at any time, on any thread: with the
        #: first item that one gets, a thread of the pool runs
        #: :meth:`on_message`, and it has to be added again for the next. Put
        #: a select that is not oneshot in place of this one to hear of all.
        self.select = mitogen.select.Select()

    def __repr__(self):
        return '<%s>' % (self.name(),)

    @classmethod
    def name(cls):
        """
        Return the name to call it by, text.
        """
        return to_text('%s.%s' % (cls.__module__, cls.__name__))

    def on_message(self, event):
        """
        Called for each event of :attr:`select`. Pool thread.

        :param mitogen.select.Event event:
        """
        pass

    def on_shutdown(self):
        """
        Called after the last thread of the pool ended, on the thread that
        stops the pool; that may be the broker thread, so do not wait.
        """
        pass


#
# The pool.
#

class _PoolSelect(mitogen.select.Select):
    """
    A select that remembers of which member select an event is.
    """
    def _take_nested(self, inner):
        try:
            event = super(_PoolSelect, self)._take_nested(inner)
        except mitogen.core.ChannelError:
            # A receiver of the service was closed, or told that nothing will
            # come. That is no event.
            LOG.debug('%r: %s', inner, sys.exc_info()[1])
            return None
        if event is not None:
            event.select = inner
        return event


class Pool(object):
    """
    Threads that obey service calls. To be stopped before the interpreter can
    exit, unless the broker ends before. All methods may be called from any
    thread, but those that wait for threads not from one that these wait for.

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
        # Held while a service is loaded, which may have others loaded.
        self._activation_lock = threading.RLock()
        self._activator = self.activator_class()
        self.router = router
        self._lock = threading.Lock()
        self._services = []          # in the order of add(); guarded by _lock
        self._invoker_by_name = {}   # writes guarded by _lock
        self._service_by_select = {} # id() -> service; writes guarded by _lock
        self._selects = []           # of services; guarded by _lock
        self._threads = []

        # No policy: each method has its own.
        self._receiver = mitogen.core.Receiver(
            router, mitogen.core.CALL_SERVICE, overwrite=overwrite)
        router._service_pool = self
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
        try:
            for service in services:
                self.add(service)
        except Exception:
            self._close()
            raise

        for i in range(size):
            thread = threading.Thread(
                name='mitogen.Pool.%04x.%d' % (id(self) & 0xffff, i),
                target=mitogen.core._profile_hook,
                args=('mitogen.service.pool', self._worker_main),
            )
            # Else it is what the current thread is.
            thread.daemon = False
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()

        # Without a broker nothing comes any more.
        broker = router.broker
        mitogen.core.listen(broker, 'exit', self._close)
        if getattr(broker, '_exitted', False):
            self._close()
        LOG.debug('%r: made', self)

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
                        # It is being closed, and will do the same.
                        LOG.debug('%r: closed', rest[0])

    def get_invoker(self, name, msg):
        """
        Return the invoker of a service, which is loaded if need be.

        :param name:
            Text.
        :param msg:
            Who asks; :data:`None` if it does not matter.
        :raises mitogen.core.CallError:
            It is not loaded, and `msg` does not permit it.
        """
        invoker = self._invoker_by_name.get(name)
        if invoker is not None:
            return invoker
        with self._activation_lock:
            if name not in self._invoker_by_name:
                service = self._activator.activate(self, name, msg)
                with self._lock:
                    # It may call itself otherwise.
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
        Have a function called on one of the threads. What it raises is logged.

        :raises mitogen.core.LatchError:
            The pool was stopped.
        """
        self._func_latch.put((func, args, kwargs))

    def _stop_with_broker(self):
        mitogen.core.listen(self.router.broker, 'shutdown',
                            self._on_broker_shutdown)

    def _on_broker_shutdown(self):
        # A thread may wait for what only this one can do.
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
            # The handle is another pool's by now.
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
        What each thread does.
        """
        while not self.closed:
            event = None
            try:
                event = self._select.get_event()
            except mitogen.core.ChannelError:
                # A dead message that somebody sent here. Or the receiver was
                # closed, and so are we.
                LOG.debug('%r: %s', self, sys.exc_info()[1])
                continue
            except (mitogen.core.LatchError, mitogen.select.Error):
                # Closed, before or after all members were removed from it.
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
            self._on_service_call(event.data)

    @staticmethod
    def _parse(msg):
        """
        Return the names of service and method, and the arguments.

        :raises mitogen.core.CallError:
            It is not a call.
        """
        request = msg.unpickle(throw=False)
        types = (mitogen.core.UnicodeType, mitogen.core.UnicodeType, dict)
        if not (isinstance(request, tuple) and len(request) == len(types) and
                all(map(isinstance, request, types))):
            raise mitogen.core.CallError('this is no service call')
        return request

    def _on_service_call(self, msg):
        service_name = method_name = None
        if msg.router is None:
            # From this process. What is in it needs a router to be sent by.
            msg.router = self.router
        try:
            service_name, method_name, kwargs = self._parse(msg)
            invoker = self.get_invoker(service_name, msg)
            invoker.invoke(method_name, kwargs, msg)
        except mitogen.core.CallError:
            error = sys.exc_info()[1]
            _log_refusal(service_name, method_name, error)
            _reply(msg, error)
        except BaseException:
            # Also SystemExit: somebody waits for an answer.
            error = mitogen.core.CallError(sys.exc_info()[1])
            LOG.exception('%r: the call of %s of %s failed', self, method_name,
                          service_name)
            _reply(msg, error)


#
# Files pushed down the tree.
#

# What methods below have in common.
_PARENTS = AllowParents()
_ANY = AllowAny()
_PATH = {'path': mitogen.core.FsPathTypes}
_PATH_TO_CONTEXT = dict(_PATH, context=mitogen.core.Context)


def _text_path(path):
    """
    Return a path, given by text, bytes or an object that stands for one, as
    plain text: no other type crosses to another context.
    """
    if hasattr(path, '__fspath__'):
        path = path.__fspath__()
    if isinstance(path, mitogen.core.AnyTextType):
        return to_text(path)
    return path


def _keep_heap():
    """
    glibc gives the end of its heap back again and again, and fetches it page
    by page for the next parts of a file, until a larger block than these has
    been given back. Nothing in this one is touched. The compiled core does the
    same by itself.
    """
    global _heap_kept
    if mitogen.core.PY3 and mitogen.core.CORE == 'pure' and not _heap_kept:
        _heap_kept = True
        bytes(4 << 20)


def _forget_closed(stream, forget):
    """
    Have `forget` called, on the broker thread, when a stream disconnects, or
    now if it has.
    """
    mitogen.core.listen(stream, 'disconnect', forget)
    side = stream.receive_side
    if side is not None and side.closed:
        forget()


class PushFileService(Service):
    """
    Brings small files to contexts further down, each once over each stream on
    the way, and keeps them in memory there. The file is read where it is first
    asked for by :meth:`propagate_to`.
    """
    lost_msg = 'the file %r will not come: nobody is left to bring it'

    def __init__(self, **kwargs):
        super(PushFileService, self).__init__(**kwargs)
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._cache = {}           # path -> Blob
        self._waiters = {}         # path -> functions to call when it is there
        self._sent_by_stream = {}  # stream -> paths it has seen
        self._extra_sys_paths = set()
        self._getters = set()      # latches of get()
        self._lost = False         # nothing will be pushed any more
        if mitogen.parent_id is not None:
            mitogen.core.listen(
                self.router.context_by_id(mitogen.parent_id),
                'disconnect', self.on_shutdown)

    def on_shutdown(self):
        """
        Wake who waits for what will not come.
        """
        with self._lock:
            self._lost = True
            getters = list(self._getters)
        for latch in getters:
            latch.close()

    def _when_cached(self, path, func):
        """
        Call `func()` once the file is there: now, or on the thread that
        brings it.
        """
        with self._lock:
            if path not in self._cache:
                self._waiters.setdefault(path, []).append(func)
                return
        func()

    def _store(self, path, data):
        """
        Keep a file and return the functions to call because of it.
        """
        with self._lock:
            self._cache[path] = data
            return self._waiters.pop(path, ())

    def _call_waiters(self, path, waiters):
        """
        Call those functions. One of them may find its target lost, which is
        nothing to the others.
        """
        for func in waiters:
            try:
                func()
            except Exception:
                LOG.exception('%r: %r cannot be passed on', self, path)

    def get(self, path):
        """
        Return the content of a file, as soon as it is there. Any thread but
        the broker's.

        :param path: text.
        :raises mitogen.core.ChannelError:
            The parent, who would bring it, is lost, or the service ends.
        """
        assert isinstance(path, mitogen.core.UnicodeType)
        if path not in self._cache:
            latch = mitogen.core.Latch()
            with self._lock:
                self._getters.add(latch)
                if self._lost:
                    latch.close()
            try:
                self._when_cached(path, lambda: self._wake(latch))
                LOG.debug('%r: waiting for %r', self, path)
                latch.get()
            except mitogen.core.LatchError:
                raise mitogen.core.ChannelError(self.lost_msg % (path,))
            finally:
                with self._lock:
                    self._getters.discard(latch)
        return self._cache[path]

    @staticmethod
    def _wake(latch):
        try:
            latch.put()
        except mitogen.core.LatchError:
            # It was given up just now.
            pass

    def _forward(self, context, path):
        """
        Send a file on its way to `context`, or to the one that passes it on
        and knows it already, only word of it.
        """
        stream = self.router.stream_by_id(context.context_id)
        if stream is None:
            raise Error('there is no way to %r' % (context,))
        child = self.router.context_by_id(stream.protocol.remote_id)
        with self._lock:
            known = stream in self._sent_by_stream
            sent = self._sent_by_stream.setdefault(stream, set())
            first = path not in sent
            sent.add(path)
        if not known:
            _forget_closed(stream, lambda: self._forget(stream))

        args = {'path': path, 'context': context}
        if first:
            method = 'store_and_forward'
            args['data'] = self._cache[path]
        elif child.context_id == context.context_id:
            return
        else:
            method = 'forward'
        LOG.debug('%r: %s of %r by %r', self, method, path, child)
        try:
            child.call_service_async(self.name(), method, **args).close()
        except Exception:
            if first:
                with self._lock:
                    sent.discard(path)
            raise

    def _forget(self, stream):
        with self._lock:
            self._sent_by_stream.pop(stream, None)

    @expose(_PARENTS)
    @arg_spec(_PATH_TO_CONTEXT)
    def propagate_to(self, context, path, overridden_source=None):
        """
        Bring a file to a context.

        :param mitogen.core.Context context:
        :param path:
            Name of the file in this process, and its name for :meth:`get`.
        :param bytes overridden_source:
            Bring this instead of what is in the file.
        """
        name = _text_path(path)
        if name not in self._cache:
            data = overridden_source
            if data is None:
                with open(path, 'rb') as fp:
                    data = fp.read()
            waiters = self._store(name, mitogen.core.Blob(data))
            self._call_waiters(name, waiters)
        self._forward(context, name)

    @expose(_PARENTS)
    @arg_spec({'paths': list, 'context': mitogen.core.Context})
    def propagate_paths_and_modules(self, context, paths,
                                    overridden_sources=None,
                                    extra_sys_paths=None):
        """
        Bring files to a context, each as :meth:`propagate_to` does.

        :param overridden_sources:
            Dict, path -> bytes to bring instead of what is in the file.
        :param extra_sys_paths:
            What to append to :data:`sys.path` of this process, once each.
        """
        sources = dict((_text_path(path), source) for path, source in
                       mitogen.core.iteritems(overridden_sources or {}))
        for path in paths:
            name = _text_path(path)
            self.propagate_to(context, name, sources.get(name))
        for entry in extra_sys_paths or ():
            with self._lock:
                seen = entry in self._extra_sys_paths
                self._extra_sys_paths.add(entry)
            if not seen:
                sys.path.append(entry)

    @expose(_PARENTS)
    @no_reply()
    @arg_spec(dict(_PATH_TO_CONTEXT, data=mitogen.core.Blob))
    def store_and_forward(self, path, data, context):
        """
        Keep a file, and send it on if it is for another context.
        """
        waiters = self._store(path, data)
        try:
            if context.context_id != mitogen.context_id:
                self._forward(context, path)
        finally:
            self._call_waiters(path, waiters)

    @expose(_PARENTS)
    @no_reply()
    @arg_spec(_PATH_TO_CONTEXT)
    def forward(self, path, context):
        """
        Send a file on to another context, as soon as it is here.
        """
        self._when_cached(path, lambda: self._forward(context, path))


#
# Files fetched from anywhere in the tree.
#

class FileStreamState(object):
    """
    What a :class:`FileService` sends over one stream. `lock` guards the rest.
    """
    def __init__(self):
        self.lock = threading.Lock()
        #: `(sender, open file)`, in the order to send them.
        self.jobs = collections.deque()
        #: Bytes sent that nobody said to have received.
        self.unacked = 0
        #: The same, by the id of the context they went to.
        self.unacked_by_id = {}


class FileService(Service):
    """
    Sends files of this process to contexts that fetch them, of any size, with
    little in memory at either end: no more than a window is on its way over a
    stream, whoever behind it fetches.
    """
    #: A chunk is sent if less than this is on its way.
    window_size_bytes = 1048576

    #: Bytes in a chunk. With its header, it is what one read takes.
    IO_SIZE = mitogen.core.CHUNK_SIZE - mitogen.core.Message.HEADER_LEN

    #: Seconds to wait for each part that is still on its way, when writing to
    #: the file at the receiving end has failed.
    give_up_timeout = 5.0

    unregistered_msg = 'the file %r is not one that may be fetched'
    context_mismatch_msg = 'a file can only be sent to who asks for it'

    def __init__(self, router):
        super(FileService, self).__init__(router)
        self._lock = threading.Lock()
        self._paths = set()        # guarded by _lock
        self._prefixes = set()     # guarded by _lock
        self._state_by_stream = {} # guarded by _lock
        # Contexts and streams that left: the broker thread must not wait for
        # a lock that is held while something is sent.
        self._left = mitogen.core.Latch()
        self.select = mitogen.select.Select([self._left], oneshot=False)

    @expose(_PARENTS)
    @arg_spec(_PATH)
    def register(self, path):
        """
        Let every context fetch the file of exactly this name.

        :param path: text.
        """
        with self._lock:
            self._paths.add(_text_path(path))

    @expose(_PARENTS)
    @arg_spec(_PATH)
    def register_prefix(self, path):
        """
        Let every context fetch the files in a directory, at any depth. Names
        count, not where symbolic links lead.
        """
        with self._lock:
            self._prefixes.add(os.path.abspath(_text_path(path)))

    def _is_permitted(self, path, msg):
        name = _text_path(path)
        with self._lock:
            if name in self._paths:
                return True
            prefixes = set(self._prefixes)
        if mitogen.core.has_parent_authority(msg):
            return True
        name = os.path.abspath(name)
        while name not in prefixes:
            parent = os.path.dirname(name)
            if parent == name:
                return False
            name = parent
        return True

    @staticmethod
    def _open(path):
        """
        Open a regular file and return it, and what :func:`os.fstat` tells.
        """
        irregular = '%r is not a regular file' % (path,)
        # Opening is not without effect on everything else.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Error(irregular)
        fp = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 'rb', 0)
        try:
            if not mitogen.core.PY3:
                mitogen.core.set_cloexec(fp.fileno())
            st = os.fstat(fp.fileno())
            if not stat.S_ISREG(st.st_mode):
                raise Error(irregular)
        except Exception:
            fp.close()
            raise
        return fp, st

    @staticmethod
    def _metadata(st):
        import grp
        import pwd
        names = []
        for find, number in ((pwd.getpwuid, st.st_uid),
                             (grp.getgrgid, st.st_gid)):
            try:
                names.append(to_text(find(number)[0]))
            except KeyError:
                names.append(None)
        return {
            u'size': st.st_size,
            u'mode': st.st_mode,
            u'owner': names[0],
            u'group': names[1],
            u'mtime': st.st_mtime,
            u'atime': st.st_atime,
        }

    def _get_state(self, context):
        """
        Return the state of the stream to a context.
        """
        # None for this process.
        stream = self.router.stream_by_id(context.context_id)
        with self._lock:
            state = self._state_by_stream.get(stream)
            new = state is None
            if new:
                state = self._state_by_stream[stream] = FileStreamState()
        if new and stream is not None:
            _forget_closed(stream, lambda: self._left.put((stream, None)))
        return state, stream

    def _expect(self, state, stream, context_id):
        """
        Prepare for a context to leave while something is on its way to it. The
        lock of the state is held.
        """
        if context_id not in state.unacked_by_id:
            state.unacked_by_id[context_id] = 0
            mitogen.core.listen(
                self.router.context_by_id(context_id), 'disconnect',
                lambda: self._left.put((stream, context_id)))

    def on_message(self, event):
        """
        A stream, or a context behind it, has left.
        """
        stream, context_id = event.data
        with self._lock:
            state = self._state_by_stream.get(stream)
            if context_id is None:
                self._state_by_stream.pop(stream, None)
        if state is None:
            return
        with state.lock:
            for job in list(state.jobs):
                if context_id in (None, job[0].context.context_id):
                    state.jobs.remove(job)
                    job[1].close()
            state.unacked -= state.unacked_by_id.pop(context_id, 0)
        self._pump(state)

    @expose(_ANY)
    @no_reply()
    @arg_spec(dict(_PATH, sender=mitogen.core.Sender))
    def fetch(self, path, sender, msg):
        """
        Send a file. The answer comes before the content: a dict of `size`,
        `mode`, `owner`, `group`, `mtime` and `atime`. Of these, `owner` and
        `group` are text, or :data:`None` if they have no name here.

        :param path:
            Name of the file, text.
        :param mitogen.core.Sender sender:
            Where to send its content, in chunks; closed at the end.
        """
        fp = None
        try:
            if not self._is_permitted(path, msg):
                raise Error(self.unregistered_msg % (path,))
            if msg.src_id != sender.context.context_id:
                raise Error(self.context_mismatch_msg)
            fp, st = self._open(path)
            answer = self._metadata(st)
            state, stream = self._get_state(sender.context)
        except Exception:
            if fp is not None:
                fp.close()
            answer = mitogen.core.CallError(sys.exc_info()[1])
            _log_refusal(self.name(), 'fetch', answer)
            return _reply(msg, answer)

        # Not before: the answer comes first.
        _reply(msg, answer)
        with state.lock:
            self._expect(state, stream, msg.src_id)
            state.jobs.append((sender, fp))
        if not self._is_there(msg.src_id, stream):
            # It left while its question waited here, so nobody will say so.
            self._left.put((stream, msg.src_id))
        self._pump(state)

    def _is_there(self, context_id, stream):
        """
        Return whether a context is still reached over `stream`. If so, who
        listens for its loss already will be told of it.
        """
        if getattr(self.router.context_by_id(context_id), '_loss', None):
            return False
        # That is a new object if it was no child of ours. But the route goes
        # before anybody is told.
        now = self.router.stream_by_id(context_id)
        return now is stream and (now is not None or
                                  context_id == mitogen.context_id)

    @expose(_ANY)
    @no_reply()
    @arg_spec({'size': mitogen.core.integer_types})
    def acknowledge(self, size, msg):
        """
        Take note that bytes have arrived, and send more.
        """
        with self._lock:
            state = self._state_by_stream.get(
                self.router.stream_by_id(msg.src_id))
        if state is None:
            LOG.debug('%r: acknowledgement of nothing by context %d', self,
                      msg.src_id)
            return
        with state.lock:
            if size > state.unacked:
                LOG.error('%r: context %d acknowledged %d bytes, of %d',
                          self, msg.src_id, size, state.unacked)
            size = max(0, min(state.unacked, size))
            state.unacked -= size
            mine = state.unacked_by_id.get(msg.src_id)
            if mine is not None:
                state.unacked_by_id[msg.src_id] = max(0, mine - size)
        self._pump(state)

    @expose(_ANY)
    @no_reply()
    @arg_spec({'handle': mitogen.core.integer_types})
    def abandon(self, handle, msg):
        """
        Send no more of a file to the sender for a handle of the caller, and
        close that.
        """
        with self._lock:
            state = self._state_by_stream.get(
                self.router.stream_by_id(msg.src_id))
        if state is None:
            return
        with state.lock:
            for job in list(state.jobs):
                sender = job[0]
                if (sender.context.context_id, sender.dst_handle) == (
                        msg.src_id, handle):
                    state.jobs.remove(job)
                    self._end(job)
        self._pump(state)

    @staticmethod
    def _end(job):
        sender, fp = job
        fp.close()
        try:
            sender.close()
        except mitogen.core.Error:
            LOG.debug('the broker exited during a transfer')

    def _pump(self, state):
        """
        Send what the window has room for.
        """
        with state.lock:
            while state.jobs and state.unacked < self.window_size_bytes:
                self._send_chunk(state, state.jobs[0])

    def _send_chunk(self, state, job):
        sender, fp = job
        try:
            data = fp.read(self.IO_SIZE)
            if data:
                context_id = sender.context.context_id
                state.unacked += len(data)
                state.unacked_by_id[context_id] = len(data) + \
                    state.unacked_by_id.get(context_id, 0)
                sender.send(data, enc=mitogen.core.Message.ENC_BIN)
                return
        except Exception:
            # The receiver sees that it did not get everything.
            LOG.exception('%r: cannot send %r', self, fp)
        state.jobs.popleft()
        self._end(job)

    def on_shutdown(self):
        """
        End all transfers; who fetches sees that something is missing.
        """
        with self._lock:
            states = list(self._state_by_stream.values())
            self._state_by_stream.clear()
        for state in states:
            with state.lock:
                while state.jobs:
                    self._end(state.jobs.popleft())

    @classmethod
    def _take_chunk(cls, context, recv, timeout=None):
        """
        Return the next part of a file.

        :raises mitogen.core.ChannelError:
            There is none.
        """
        data = recv.get(timeout).decode()
        # At once, so that more comes while this part is made use of.
        context.call_service_async(
            cls.name(), 'acknowledge', size=len(data)).close()
        return data

    @classmethod
    def _give_up(cls, context, recv):
        """
        Have no more of a file sent. What is on its way counts against the
        window of others until it is acknowledged, so wait for that.
        """
        try:
            context.call_service_async(
                cls.name(), 'abandon', handle=recv.handle).close()
            while True:
                cls._take_chunk(context, recv, cls.give_up_timeout)
        except mitogen.core.Error:
            LOG.debug('%r: gave up a file: %s', context, sys.exc_info()[1])

    @classmethod
    def get(cls, context, path, out_fp):
        """
        Fetch a file from the file service of another context. Any thread but
        the broker's.

        :param mitogen.core.Context context:
        :param path:
            Name of the file there, text.
        :param out_fp:
            Binary file to write to; only its method `write` is used.
        :returns:
            `(ok, metadata)`: whether everything arrived, and the dict of
            :meth:`fetch`.
        :raises mitogen.core.CallError:
            It may not be fetched, or not be read.
        :raises mitogen.core.ChannelError:
            The context cannot be reached.
        """
        router = context.router
        # The one object that is told when the context leaves.
        respondent = router.context_by_id(context.context_id)
        received = 0
        with mitogen.core.Receiver(router, respondent=respondent) as recv:
            metadata = context.call_service(
                cls.name(), 'fetch', path=_text_path(path),
                sender=recv.to_sender())
            try:
                while True:
                    try:
                        data = cls._take_chunk(context, recv)
                    except mitogen.core.ChannelError:
                        break
                    received += len(data)
                    out_fp.write(data)
                    if received > cls.window_size_bytes:
                        _keep_heap()
            except BaseException:
                cls._give_up(context, recv)
                raise
        if received != metadata[u'size']:
            LOG.error('%r: %d bytes of %r arrived, of %d',
                      context, received, path, metadata[u'size'])
        return received == metadata[u'size'], metadata
