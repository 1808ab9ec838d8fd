"""
Calls of services of this process, and services whose methods wait until a test lets them go on.
"""

import threading

from mitogen.core import CallError, Latch
from mitogen.service import AllowAny, AllowParents, DeduplicatingInvoker, SerializedInvoker, Service, expose

PLAIN = u'service_targets.Plain'


def receiver_of_call(router, service_name, method_name, **kwargs):
    return router.myself().call_service_async(service_name, method_name, **kwargs)


def result_of(receiver):
    return receiver.get(timeout=60).unpickle()


class Gate(object):
    """
    Lets the test see how many calls are inside a method at once, and hold them there.
    """
    def __init__(self):
        self.entered = Latch()
        self.leave = Latch()
        self.lock = threading.Lock()
        self.inside = self.most = self.runs = 0

    def pass_through(self):
        with self.lock:
            self.inside += 1
            self.runs += 1
            self.most = max(self.most, self.inside)
        self.entered.put(None)
        try:
            return self.leave.get(timeout=60)
        finally:
            with self.lock:
                self.inside -= 1


class Gated(Service):
    def __init__(self, router):
        super(Gated, self).__init__(router)
        self.gate = Gate()
        self.order = []

    @expose(AllowAny())
    def run(self, value=None):
        self.order.append(value)
        return self.gate.pass_through()

    @expose(AllowAny())
    def fail(self, value=None):
        raise ValueError('failed on purpose')

    @expose(AllowAny())
    def refuse(self):
        self.order.append('refuse')
        raise CallError('refused on purpose')

    @expose(AllowAny())
    def quit(self):
        raise SystemExit(1)

    @expose(AllowParents())
    def privileged(self):
        return 'privileged'


class SerializedGated(Gated):
    invoker_class = SerializedInvoker


class DeduplicatedGated(Gated):
    invoker_class = DeduplicatingInvoker


def gated(router, make_pool, klass, size=3):
    service = klass(router)
    make_pool(service, size=size)
    return service, lambda method='run', **kw: receiver_of_call(router, klass, method, **kw)
