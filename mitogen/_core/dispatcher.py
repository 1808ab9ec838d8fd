# SPDX-License-Identifier: BSD-3-Clause
"""
Dispatcher: run the functions that other contexts call.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house

from mitogen.core import _seldom, CALL_AT_ONCE, CALL_FUNCTION, CALL_SERVICE, CallError, Error, has_parent_authority  # house
from mitogen.core import import_module, listen, LOG, Message, Receiver, takes_econtext, thread  # house


class Dispatcher(object):
    """
    Run the functions that CALL_FUNCTION asks for, one at a time on the main
    thread.

    :param ExternalContext econtext:
    """
    #: Receiver of CALL_SERVICE until there is a pool to take it over.
    _service_recv = None
    #: The main thread is in a call.
    _busy = False

    def __init__(self, econtext):
        self.econtext = econtext
        #: Chain id -> CallError of its first failed call.
        self._error_by_chain_id = {}
        self.recv = Receiver(econtext.router, CALL_FUNCTION,
                             policy=has_parent_authority)
        Dispatcher._service_recv = Receiver(econtext.router, CALL_SERVICE,
                                            policy=has_parent_authority)
        Dispatcher._service_recv.notify = self._on_call_service
        econtext.router.add_handler(self._on_call_at_once, CALL_AT_ONCE,
                                    policy=has_parent_authority)
        listen(econtext.broker, 'shutdown', self._on_broker_shutdown)

    @_seldom
    @classmethod
    @takes_econtext
    def forget_chain(cls, chain_id, econtext):
        """Run calls of that chain again after one has failed."""
        econtext.dispatcher._error_by_chain_id.pop(chain_id, None)

    def _on_broker_shutdown(self):
        if self._service_recv.notify == self._on_call_service:
            self._service_recv.notify = None
        self.recv.close()

    def _on_call_at_once(self, msg):
        if not msg.is_dead:
            thread.start_new_thread(self._serve, (msg, False))

    def _on_call_service(self, _recv):
        """Have a thread make the pool: it imports, and the broker thread must
        not. The main thread may be in a function that waits for that very
        call."""
        thread.start_new_thread(self._make_pool, ())

    @_seldom
    def _make_pool(self):
        try:
            import_module('mitogen.service').get_or_create_pool(
                router=self.econtext.router)
        except Exception:
            LOG.exception('cannot start the service pool')

    def _resolve(self, msg):
        """Return (chain id, function, args, kwargs)."""
        chain_id, modname, klass, func, args, kwargs = msg.unpickle()
        obj = None
        if chain_id not in self._error_by_chain_id:
            obj = import_module(modname)
            for name in klass.split('.') if klass else ():
                obj = getattr(obj, name)
            obj = getattr(obj, func)
            if getattr(obj, 'mitogen_takes_econtext', None):
                kwargs.setdefault('econtext', self.econtext)
            if getattr(obj, 'mitogen_takes_router', None):
                kwargs.setdefault('router', self.econtext.router)
        return chain_id, obj, args, kwargs

    def _dispatch_one(self, msg):
        """Return (chain id, result or CallError)."""
        try:
            chain_id, func, args, kwargs = self._resolve(msg)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # No call was made, so this does not break its chain.
            return None, CallError(sys.exc_info()[1])
        if chain_id in self._error_by_chain_id:
            return chain_id, self._error_by_chain_id[chain_id]
        try:
            return chain_id, func(*args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # Also SystemExit: it ends the call, and not the thread that serves
            # it.
            error = CallError(sys.exc_info()[1])
            if chain_id is not None:
                self._error_by_chain_id[chain_id] = error
            return chain_id, error

    def _serve(self, msg, on_main=True):
        self._busy = self._busy or on_main
        chain_id, result = self._dispatch_one(msg)
        # Before the answer: its recipient may want us to end.
        if on_main:
            self._busy = False
        if msg.reply_to:
            try:
                reply = Message.pickled(result)
            except Exception:
                reply = Message.pickled(CallError(sys.exc_info()[1]))
            try:
                msg.reply(reply)
            except Error:
                LOG.debug('the broker exited during a call')
        elif chain_id is None and isinstance(result, CallError):
            LOG.error('call without reply failed: %s', result)

    def run(self):
        """Serve until the receiver is closed. Main thread."""
        if os.environ.get('MITOGEN_DEBUG_SIGNAL'):
            import_module('mitogen.debug').enable_dump()
        if self.econtext.config.get('on_start'):
            self.econtext.config['on_start'](self.econtext)
        for msg in self.recv:
            self._serve(msg)
            msg = None
