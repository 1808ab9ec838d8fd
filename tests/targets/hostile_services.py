"""
Services that a master offers to everybody, also to children that lie.
"""

import threading

from mitogen.service import AllowAny, AllowParents, DeduplicatingInvoker, expose, SerializedInvoker, Service


class Offers(Service):
    """
    Answers of all sizes, and a gate that calls wait at until it is opened here.
    """
    evaluated = 0

    def __init__(self, router):
        super(Offers, self).__init__(router)
        self.gate = threading.Event()
        self.entered = []
        self.callers = []

    @expose(AllowAny())
    def small(self):
        return u'small'

    @expose(AllowAny())
    def large(self):
        return b'x' * (1 << 20)

    @expose(AllowAny())
    def wait(self, msg):
        self.entered.append(msg.src_id)
        self.gate.wait()

    @expose(AllowAny())
    def wait_for_gate(self):
        self.gate.wait()

    @expose(AllowAny())
    def note(self, msg):
        self.callers.append(msg.src_id)

    @expose(AllowParents())
    def order(self):
        raise AssertionError('nobody may')

    @property
    def secret(self):
        Offers.evaluated += 1
        return u'secret'


class InTurn(Offers):
    invoker_class = SerializedInvoker


class Once(Offers):
    invoker_class = DeduplicatingInvoker
