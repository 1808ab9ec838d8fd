"""
Services that a master offers to everybody, also to children that lie.
"""

import threading

from mitogen.service import AllowAny, AllowParents, DeduplicatingInvoker, expose, Invoker, Policy
from mitogen.service import SerializedInvoker, Service


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


class Asking(Invoker):
    """
    An invoker of a program.
    """
    def invoke(self, method_name, kwargs, msg):
        self.service.seen.append((method_name, kwargs))
        return super(Asking, self).invoke(method_name, kwargs, msg)


class Asked(Offers):
    invoker_class = Asking

    def __init__(self, router):
        super(Asked, self).__init__(router)
        self.seen = []


class Judge(Policy):
    """
    Asks the service.
    """
    def is_authorized(self, service, msg):
        service.judge.asked += 1
        return service.judge.agrees


class Judged(Offers):
    """
    A service of a program with a policy of its own.
    """
    def __init__(self, router):
        super(Judged, self).__init__(router)
        self.judge = Judge()
        self.judge.asked, self.judge.agrees = 0, False

    @expose(AllowAny())
    def open_up(self):
        self.judge.agrees = True
        return u'opened'

    @expose(Judge())
    def perhaps(self):
        return u'yes'


class JudgedInTurn(Judged):
    invoker_class = SerializedInvoker
