# SPDX-License-Identifier: BSD-3-Clause
"""
Teller: answers clients that ask for the links of the process that listens.
"""

from __future__ import absolute_import  # house

import threading  # house

import mitogen.core  # house

from mitogen.unix import LOG  # house


#: Handle of these questions. It is none of those that a router gives out.
_LINKS = 900


class _Teller(object):
    """
    Tells clients what `mitogen._links` says, one after the other. While there are questions, a
    thread of its own does it: the broker's may not look at its own streams.
    """
    #: Questions that wait at a time. Further ones get no answer.
    MOST = 100

    def __init__(self, router):
        self._router = router
        #: Guards the questions. The thread runs while there are some.
        self._lock = threading.Lock()
        self._waiting = []

    @classmethod
    def serve(cls, router):
        """
        Have a router answer. Any thread; repeatable.
        """
        if _LINKS not in router._handle_map:
            router.add_handler(cls(router)._on_question, handle=_LINKS,
                               policy=mitogen.core.has_parent_authority)

    def _on_question(self, msg):
        """
        Take a question. Broker thread.
        """
        if msg.is_dead or not msg.reply_to:
            return
        with self._lock:
            if len(self._waiting) >= self.MOST:
                return
            self._waiting.append(msg)
            if len(self._waiting) > 1:
                return
        thread = threading.Thread(target=self._run, name='mitogen.unix.teller')
        thread.daemon = True
        try:
            thread.start()
        except RuntimeError:
            # The system gives no thread. They may ask again.
            with self._lock:
                del self._waiting[:]
            raise

    def _run(self):
        import mitogen._links
        more = True
        while more:
            try:
                self._waiting[0].reply(mitogen._links.links(router=self._router))
            except Exception:
                # A stream that closes just now, or the end of the broker.
                LOG.debug('cannot tell of the links', exc_info=True)
            with self._lock:
                del self._waiting[0]
                more = bool(self._waiting)
