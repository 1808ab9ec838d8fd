# SPDX-License-Identifier: BSD-3-Clause
"""
Invokers: how a call becomes a call of a method, on which thread, and how the
caller is answered.
"""

from __future__ import absolute_import  # house

import sys  # house
import threading  # house

import mitogen.core  # house


from mitogen.service import _arguments_of, _CallQueue, _has_parameter, _has_room, _hurry, _peer_of, _Tally  # house
from mitogen.service import AllowAny, AllowParents, func_name, LOG, validate_arg_spec  # house


class _NoReply(object):
    """
    The type of :data:`Service.NO_REPLY`.
    """
    def __repr__(self):
        return 'Service.NO_REPLY'


_NO_REPLY = _NoReply()


#: Lines a second that the log has for failed calls of one peer.
_LINES = 20


def _may_log(msg):
    """
    Return whether there may be a line about a call now, and text to append.
    """
    if msg is None or mitogen.core.has_parent_authority(msg):
        return True, ''
    return mitogen.core._may_log_now(_peer_of(msg)[0] or msg.router,
                                  'service calls', _LINES)


def _log_refusal(service_name, method_name, error, msg):
    tell, more = _may_log(msg)
    if tell:
        # The first three may be text of the caller, so each line begins with a
        # word of ours.
        caller = mitogen.context_id if msg is None else msg.src_id
        marks = None, None, u'[context %s] ' % (caller,)
        words = [mitogen.core._printable(mitogen.core.to_text(text), mark)
                 for text, mark in zip((method_name, service_name, error),
                                       marks)]
        LOG.warning("context %s: the call of '%s' of '%s' failed: %s%s",
                    *[caller] + words + [more])


def _reply_quickly(msg, value):
    """
    Answer a call, and do not wait for the caller to have room for it.
    """
    with _hurry(msg.router):
        msg.reply(value)


def _reply(msg, value):
    """
    Answer a call, with an error if `value` cannot be sent.
    """
    try:
        try:
            _reply_quickly(msg, value)
        except mitogen.core.Error:
            raise
        except Exception:
            LOG.exception('the result of a service call cannot be sent')
            _reply_quickly(msg, mitogen.core.CallError(sys.exc_info()[1]))
    except mitogen.core.Error:
        # It is raised only if the broker has exited, and then no caller waits
        # any more.
        LOG.debug('the broker exited during a service call')


def _declared(service, name):
    """
    Return the raw attribute of a service, without running code of it, such as
    a property; :data:`None` if there is none.
    """
    for holder in (service,) + type(service).__mro__:
        found = vars(holder).get(name)
        if found is not None:
            # The function behind a static or a class method.
            return getattr(found, '__func__', found)
    if hasattr(type(service), '__getattr__'):
        # Such a service makes methods when they are looked up.
        return getattr(service, name, None)


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
        Return the method that a call asks for, and its arguments, if it may be
        called. They are read now if they are :data:`None`.

        :raises mitogen.core.CallError:
        """
        self._check(method_name, msg, object)
        if kwargs is None:
            kwargs = _arguments_of(msg)
        method = getattr(self.service, method_name)
        validate_arg_spec(getattr(method, 'mitogen_service__arg_spec', {}),
                          kwargs)
        return method, kwargs

    def _check(self, method_name, msg, kinds):
        """
        Find out whether a call is allowed, and run nothing of the service. Only the policies of the
        classes `kinds` are asked; the others count as if they agreed.

        :raises mitogen.core.CallError:
            It is not.
        """
        service = self.service
        method = _declared(service, method_name)
        policies = getattr(method, 'mitogen_service__policies', ())
        refusal = None
        if method is None:
            refusal = 'there is no method %r in service %r'
        elif not policies:
            refusal = 'only its own process may use method %r of service %r'
        elif msg is not None and not all([
                policy.is_authorized(service, msg) for policy in policies
                if isinstance(policy, kinds)]):
            refusal = self.unauthorized_msg
        if refusal:
            raise mitogen.core.CallError(refusal, method_name, service.name())

    def _check_quickly(self, method_name, msg):
        """
        Check a call on the broker thread. A policy of a program might hold
        that up, so it is asked later.
        """
        if not hasattr(type(self.service), '__getattr__'):
            self._check(method_name, msg, (AllowAny, AllowParents))

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
            tell, more = _may_log(msg)
            if tell:
                LOG.exception('%r: %s failed, and its caller wants no reply%s',
                              self, func_name(method), more)
        return _NO_REPLY

    def invoke(self, method_name, kwargs, msg):
        """
        Obey one call, and answer it.

        :param method_name: text.
        :param dict kwargs: arguments of the method. Our own invokers take
            :data:`None`, too, for those of `msg`.
        :param msg:
            Message to answer; if :data:`None`, nothing is answered, and no
            policy asked.
        :returns:
            The answer that was sent, or :data:`Service.NO_REPLY`.
        :raises Exception:
            The method raised it, or it is :class:`mitogen.core.CallError` and
            the method was not called. Nothing has been answered then.
        """
        method, kwargs = self._checked_method(method_name, kwargs, msg)
        result = self._run(method, kwargs, msg)
        if msg is not None and result is not _NO_REPLY:
            _reply_quickly(msg, result)
        return result


class SerializedInvoker(Invoker):
    """
    Runs one call of the service at a time, of each peer in the order of
    arrival, and on one thread of the pool for as long as there are more.
    """
    #: This invoker itself tells when a call has come.
    _keeps_order = True

    def __init__(self, **kwargs):
        super(SerializedInvoker, self).__init__(**kwargs)
        self._calls = _CallQueue(self._wake)
        self._lock = threading.Lock()
        self._busy = False   # guarded by _lock

    def invoke(self, method_name, kwargs, msg):
        """
        Obey a call now, or leave it to the thread that obeys another one.
        """
        ticket = None if msg is None else self._calls.tally.take(msg)
        thread = threading.current_thread()

        def queue():
            self._calls.add(msg, (method_name, kwargs, msg), ticket)
            if threading.current_thread() is not thread:
                self._wake(1)

        pool = getattr(self.service.router, '_service_pool', None)
        if pool is None or msg is None:
            queue()
        else:
            pool._coming.has_come(msg, queue)
        self._drain()
        return _NO_REPLY

    def _drain(self):
        while True:
            with self._lock:
                call_ = None if self._busy else self._calls.take()
                if call_ is None:
                    return
                self._busy = True
            try:
                self._invoke_one(*call_)
            finally:
                with self._lock:
                    self._busy = False

    def _wake(self, count):
        pool = getattr(self.service.router, '_service_pool', None)
        if count and pool is not None:
            pool._defer_quietly(self._drain)

    def _invoke_one(self, method_name, kwargs, msg):
        try:
            super(SerializedInvoker, self).invoke(method_name, kwargs, msg)
            return
        except mitogen.core.CallError:
            answer = sys.exc_info()[1]
            _log_refusal(self.service.name(), method_name, answer, msg)
        except BaseException:
            # Also SystemExit: the calls behind this one must go on.
            tell, more = _may_log(msg)
            if tell:
                LOG.exception('%r: method %r failed%s', self, method_name, more)
            answer = mitogen.core.Message.dead(
                'method %s of service %s failed, see the log of its context'
                % (method_name, self.service.name()))
        if msg is not None:
            _reply(msg, answer)


#: How much the arguments of a call may hold that is compared with others: each
#: object counts, and 128 characters of text as one.
_COMPARED_MAX = 1 << 20


def _revealed(obj, left=None):
    """
    Return `obj` so that its representation shows everything in it, and is the
    same for equal objects.

    :param left: list of how much more may be in it.
    :raises mitogen.core.CallError: there is more. A tuple may hold another one
        many times, which holds the next one many times.
    """
    left = [_COMPARED_MAX] if left is None else left
    left[0] -= 1 + (len(obj) // 128 if isinstance(obj, mitogen.core.AnyTextType) else 0)
    if left[0] < 0:
        raise mitogen.core.CallError('the arguments are too large to be compared')
    if isinstance(obj, dict):
        return dict((_revealed(key, left), _revealed(obj[key], left)) for key in obj)
    if isinstance(obj, (list, tuple)):
        return type(obj)([_revealed(item, left) for item in obj])
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
        self._tally = _Tally()
        self._lock = threading.Lock()
        self._results = {}  # key -> result; guarded by _lock
        # key -> calls to be answered, with their tickets; guarded by _lock
        self._waiters = {}

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

    def _compute(self, method, kwargs, msg):
        """
        Return the result, or the error. `msg` is not for the method.
        """
        try:
            return self._run(method, kwargs, None)
        except mitogen.core.CallError:
            error = sys.exc_info()[1]
            _log_refusal(self.service.name(), func_name(method), error, msg)
            return error
        except BaseException:
            # Also SystemExit: the calls that wait must be answered.
            tell, more = _may_log(msg)
            if tell:
                LOG.exception('%r: %s failed%s', self, func_name(method), more)
            return mitogen.core.CallError(sys.exc_info()[1])

    def invoke(self, method_name, kwargs, msg):
        """
        Obey a call, or answer it with the result of an earlier one.
        """
        # First, check the call: not every caller may have the result of
        # another call.
        method, kwargs = self._checked_method(method_name, kwargs, msg)
        key = self.key_from_request(method_name, kwargs)
        ticket = None if msg is None else self._tally.take(msg)
        with self._lock:
            known = key in self._results
            if known:
                result = self._results[key]
                waiters = [(msg, ticket)]
            elif key in self._waiters:
                self._waiters[key].append((msg, ticket))
                return _NO_REPLY
            else:
                self._waiters[key] = [(msg, ticket)]

        if not known:
            result = self._compute(method, kwargs, msg)
            with self._lock:
                self._results[key] = result
                waiters = self._waiters.pop(key)
        for waiter, ticket in waiters:
            self._tally.give(ticket)
            if waiter is not None and result is not _NO_REPLY:
                self._answer(waiter, result)
        return _NO_REPLY if msg is not None else result

    @staticmethod
    def _answer(msg, result):
        """
        Answer a call, unless many answers wait for its peer: then it comes
        back when it has read them.
        """
        pool = getattr(msg.router, '_service_pool', None)
        if pool is None or _has_room(msg.router.stream_by_id(msg.src_id)):
            _reply(msg, result)
        else:
            pool._calls.add(msg)
            pool._wake(1)


#: How our own invokers obey a call: each checks it first.
_STOCK_INVOKES = tuple(
    vars(kind)['invoke'] for kind in
    (Invoker, SerializedInvoker, DeduplicatingInvoker))
