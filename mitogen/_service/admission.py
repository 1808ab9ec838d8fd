# SPDX-License-Identifier: BSD-3-Clause
"""
Admission: whether a call may wait for a thread of a pool at all.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house

from mitogen.service import _has_room, _request_of, _STOCK_INVOKES, Activator  # house


class _Admission(object):
    """
    The policy of the receiver that calls of services come to. A caller
    without authority may have a limited number of calls wait. A call that the
    policy of its method refuses does not wait at all. Broker thread.

    :param Pool pool:
    """
    #: The compiled core does not ask about callers with a parent's authority,
    #: and about others only when some calls wait.
    for_guests_only = True

    #: Calls of a peer that may wait before another is looked into: looking
    #: takes longer than most calls wait. The compiled core counts this many
    #: itself.
    unasked = 0 if mitogen.core.CORE == 'native' else 32

    #: A longer call is looked into in any case. The compiled core asks about
    #: each of those.
    long = 65536

    def __init__(self, pool):
        self._pool = pool

    def __call__(self, msg, stream):
        if stream is None or mitogen.core.has_parent_authority(msg):
            return True
        if msg.is_dead:
            return False
        if msg.router is None:
            msg.router = self._pool.router
        try:
            self._admit(msg, self._pool._calls.tally)
        except mitogen.core.CallError as error:
            self._answer(msg, stream, error)
            return False
        return True

    def _admit(self, msg, tally):
        # First, since it takes least.
        ticket = tally.take(msg)
        try:
            if tally.count(ticket) > self.unasked or len(msg.data) > self.long:
                self._check(msg)
        except mitogen.core.CallError:
            tally.give(ticket)
            raise
        msg._ticket = ticket

    def _check(self, msg):
        """
        Look into a call.

        :raises mitogen.core.CallError:
            It would be refused.
        """
        pool = self._pool
        try:
            service_name, method_name, _ = _request_of(msg)
        except mitogen.core.CallError:
            raise
        except Exception as error:
            raise mitogen.core.CallError(error)
        invoker = pool._invoker_by_name.get(service_name)
        if invoker is not None:
            # An invoker of the program may obey calls that ours would refuse.
            if type(invoker).invoke in _STOCK_INVOKES:
                invoker._check_quickly(method_name, msg)
        elif type(pool._activator) is Activator:
            pool._activator._check(service_name, msg)

    def _answer(self, msg, stream, error):
        if msg.reply_to and _has_room(stream):
            msg.reply(error)
        # There is no other reason to refuse it.
        msg.reply_to = 0
