# SPDX-License-Identifier: BSD-3-Clause
"""
Service: the base of all services.
"""

from __future__ import absolute_import  # house

import mitogen.select  # house

from mitogen.service import _NO_REPLY, Invoker, to_text  # house


class Service(object):
    """
    Base of services. Construct it on any thread and give it to
    :meth:`Pool.add`, or leave both to the pool.

    :param mitogen.core.Router router:
    """
    #: From an invoker: nothing is to be answered.
    NO_REPLY = _NO_REPLY

    #: The class that runs the methods.
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
