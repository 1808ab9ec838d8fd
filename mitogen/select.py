# SPDX-License-Identifier: BSD-3-Clause
"""
Wait for several receivers, channels, latches and selects at once.

How it works: a member's `notify` is set to the `put` of the select's own
latch, so that each item that arrives at a member leaves a wake-up there: a
reference to the member. Nothing of a select runs on the thread that delivers,
and the native core, which knows that particular method, delivers without
entering Python. A wake-up is only a hint, since its item may have been taken
meanwhile, so the reader tries the member without blocking, and goes on if it
is empty.

A select that is a member hands the `notify` it is given on to its latch: a
wake-up there, which nobody waits for, then makes the latch leave a wake-up in
the outer select.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import functools
import sys

import mitogen.core


class Error(mitogen.core.Error):
    """
    A select was used in a way that makes no sense.
    """
    pass


class Event(object):
    """
    An item of a select, as :meth:`Select.get_event` returns it.
    """
    #: The receiver, channel or latch that the item came from, even if it is
    #: the member of a member.
    source = None

    #: The message, or the object that was put in the latch.
    data = None


def _is_ended(recv):
    """
    Return whether nothing can come to a receiver any more.
    """
    return recv.handle is None or (
        recv.handle not in recv.router._handle_map and recv.empty())


class Select(object):
    """
    Wait for any of several sources. All methods may be called from any
    thread; several threads may wait.

    :param receivers:
        Iterable of first members, see :meth:`add`.
    :param bool oneshot:
        If :data:`True`, a member is removed once it has delivered one item; a
        member that is a select, once it has no members any more. So iteration
        ends when every member has delivered.

    As a context manager, closes itself.
    """
    #: Called without arguments when it is closed: by the select that it is a
    #: member of.
    _on_close = None
    loop_msg = 'Adding this Select would create a loop'
    owned_msg = 'Cannot add: Receiver is already owned by another Select'
    not_present_msg = 'Instance is not a member of this Select'
    empty_msg = 'Cannot wait, Select instance is empty'

    def __init__(self, receivers=(), oneshot=True):
        self._receivers = []
        #: An entry for each thread that is about to wait, or waits.
        self._waiting = []
        self._closing = False
        #: id() of the object that wakes us -> member. Wake-ups hold a
        #: reference, so an id cannot come to mean another object while one is
        #: queued.
        self._by_waker = {}
        self._oneshot = oneshot
        self._latch = mitogen.core.Latch()
        # Made once, for members are recognised by it.
        self._put = self._latch.put
        for receiver in receivers:
            self.add(receiver)

    @property
    def notify(self):
        """
        Function that is called with our latch when there may be something to
        get and nobody waits for it; :data:`None` unless we are a member.
        """
        return self._latch.notify

    @notify.setter
    def notify(self, func):
        self._latch.notify = func

    @classmethod
    def all(cls, receivers):
        """
        Take an iterable of receivers, and return the list of the values that
        they receive, one each, in the order of arrival.

        :raises mitogen.core.CallError:
            One of the values was such an error.
        """
        with cls(receivers) as select:
            return [msg.unpickle() for msg in select]

    def __enter__(self):
        return self

    def __exit__(self, e_type, e_val, e_tb):
        self.close()

    def __bool__(self):
        return bool(self._receivers)

    __nonzero__ = __bool__

    def __iter__(self):
        return self.iter_data()

    def iter_data(self):
        """
        Yield items while there are members.
        """
        for event in self.iter_events():
            yield event.data

    def iter_events(self):
        """
        Yield an :class:`Event` for each item while there are members.
        """
        while self._receivers:
            try:
                event = self.get_event()
            except Error:
                if self._receivers:
                    raise
                # Another thread has taken what was left.
                return
            yield event
            # Not held while waiting for the next: it may be large.
            event = None

    def _waker(self, member):
        """
        Return the object that wake-ups from `member` carry.
        """
        if isinstance(member, Select):
            return member._latch
        return member

    def _contains(self, other):
        """
        Return :data:`True` if `other` is a member, at any depth.
        """
        for member in list(self._receivers):
            if member is other:
                return True
            if isinstance(member, Select) and member._contains(other):
                return True
        return False

    def add(self, recv):
        """
        Add a member. Items that it already holds can be got at once.

        :param recv:
            Receiver, channel, latch or select.
        :raises mitogen.select.Error:
            It is a member already, here or elsewhere, or a select that this
            one is part of.
        :raises mitogen.core.LatchError:
            This select is closed.
        """
        if isinstance(recv, Select) and \
                (recv is self or recv._contains(self)):
            raise Error(self.loop_msg)
        if recv.notify is not None:
            raise Error(self.owned_msg)
        if self._latch.closed:
            raise mitogen.core.LatchError()

        waker = self._waker(recv)
        self._by_waker[id(waker)] = recv
        self._receivers.append(recv)
        recv.notify = self._put
        recv._on_close = functools.partial(self._wake, waker)
        # An item that arrives during this loop leaves one wake-up too many.
        for _ in range(recv.size()):
            self._put(waker)

    def _wake(self, waker=None):
        """
        Have a thread look at a member, or whether there are any.
        """
        try:
            self._put(waker)
        except mitogen.core.LatchError:
            # Closed just now, which wakes all threads.
            pass

    def _wake_without_members(self):
        """
        Wake the threads that wait for members that are gone. Each has
        registered in `_waiting` before it looked for members the last time.
        """
        for _ in list(self._waiting):
            self._wake()
        if self.notify is not None:
            # The select that we are a member of may wait for us.
            self._wake()

    def _discard(self, member):
        """
        Forget a member, unless another thread has done so just now.
        """
        if self._by_waker.pop(id(self._waker(member)), None) is not None:
            # By identity: members may define what equal means.
            for index, recv in enumerate(self._receivers):
                if recv is member:
                    del self._receivers[index]
                    break
            member.notify = None
            member._on_close = None
            if not (self._receivers or self._closing):
                self._wake_without_members()

    def _release(self, member):
        # By the method that programs may replace.
        try:
            self.remove(member)
        except Error:
            # Another thread has removed it just now.
            pass

    def remove(self, recv):
        """
        Remove a member. Its items stay there.

        :raises mitogen.select.Error:
            It is no member.
        """
        if self._by_waker.get(id(self._waker(recv))) is not recv:
            raise Error(self.not_present_msg)
        self._discard(recv)

    def close(self):
        """
        Remove all members and wake the threads that wait, which get
        :class:`mitogen.core.LatchError`. May be repeated.
        """
        self._closing = True
        for recv in list(self._receivers):
            self._release(recv)
        self._latch.close()
        if self._on_close:
            self._on_close()

    def size(self):
        """
        Return how many items the members hold.
        """
        return sum(recv.size() for recv in list(self._receivers))

    def empty(self):
        """
        Return :data:`True` if :meth:`get` would block. Deprecated: the answer
        may be outdated before the caller sees it.
        """
        return self._latch.empty()

    def _take_nested(self, inner):
        try:
            event = inner.get_event(block=False)
        except mitogen.core.TimeoutError:
            event = None
        except Error:
            # The select has lost its members.
            event = None
        finally:
            if self._oneshot and not inner:
                self._release(inner)
        return event

    def _take(self, waker):
        """
        Return the event that a wake-up announced, :data:`None` if there is
        none any more.
        """
        member = self._by_waker.get(id(waker))
        if member is None:
            return None
        if isinstance(member, Select):
            return self._take_nested(member)

        event = Event()
        event.source = member
        is_receiver = isinstance(member, mitogen.core.Receiver)
        try:
            event.data = member.get(block=False)
        except mitogen.core.TimeoutError:
            return None
        except (mitogen.core.ChannelError, mitogen.core.LatchError):
            error = sys.exc_info()[1]
            error.source = member
            if not is_receiver or _is_ended(member):
                self._release(member)
            raise
        if is_receiver:
            event.data.receiver = member
        if self._oneshot:
            self._release(member)
        return event

    def get(self, timeout=None, block=True):
        """
        Like :meth:`get_event`, but return only the message, or the object
        that was put in the latch.
        """
        return self.get_event(timeout, block).data

    def get_event(self, timeout=None, block=True):
        """
        Return the next :class:`Event`.

        :param float timeout:
            Seconds to wait; for ever if :data:`None`.
        :param bool block:
            If :data:`False`, do not wait.
        :raises mitogen.select.Error:
            There are no members.
        :raises mitogen.core.TimeoutError:
            Nothing arrived in time.
        :raises mitogen.core.LatchError:
            The select was closed while the thread waited; or a latch was, that
            is the `source` of this exception and no member any more.
        :raises mitogen.core.ChannelError:
            A receiver was closed, or got a dead message. It is the `source` of
            this exception. It stays a member if more can come to it.
        """
        deadline = None
        if timeout is not None:
            deadline = mitogen.core.now() + timeout
        closing = False
        while True:
            # Noted before the look at the members: a thread that removes the last
            # one wakes all that are noted.
            self._waiting.append(None)
            try:
                if not (self._receivers or closing):
                    raise Error(self.empty_msg)
                waker = self._latch.get(timeout=timeout, block=block)
            finally:
                self._waiting.pop()
            event = self._take(waker)
            if event is not None:
                return event
            # Keep no reference while sleeping.
            waker = None
            closing = self._closing
            if deadline is not None:
                timeout = max(0, deadline - mitogen.core.now())
