"""
Services that the tests host, here and in children, and functions that children call about them.
"""

import os
import sys
import threading

import mitogen
import mitogen.core
import mitogen.service
from mitogen.core import takes_router
from mitogen.service import AllowAny, AllowParents, Service, arg_spec, expose, no_reply


class Plain(Service):
    def __init__(self, router):
        super(Plain, self).__init__(router)
        self.count = 0
        self.seen = []
        self.events = mitogen.core.Latch()
        self.shut_down = 0

    @expose(AllowParents())
    def privileged(self):
        return 'privileged'

    @expose(AllowAny())
    def unprivileged(self):
        return 'unprivileged'

    @expose(AllowParents())
    @expose(AllowAny())
    def both(self):
        return 'both'

    def hidden(self):
        return 'hidden'

    @expose(AllowAny())
    def bump(self):
        self.count += 1
        return self.count, id(self), threading.current_thread().name

    @expose(AllowAny())
    @arg_spec({'foo': int})
    def with_spec(self, foo, more=None):
        self.seen.append(foo)
        return foo

    @expose(AllowAny())
    def seen_so_far(self):
        return self.seen

    @expose(AllowAny())
    def who(self, msg):
        return msg.src_id, msg.auth_id

    @expose(AllowAny())
    def has_local_msg(self, value):
        msg = value
        return msg

    @expose(AllowAny())
    def raises(self, text):
        raise ValueError(text)

    @expose(AllowAny())
    def exits(self):
        sys.exit(3)

    @expose(AllowAny())
    def refuses(self):
        raise mitogen.core.CallError('refused on purpose')

    @expose(AllowAny())
    def unsendable(self):
        return threading.Lock()

    @expose(AllowAny())
    @no_reply()
    @no_reply()
    def silent(self, value):
        self.seen.append(value)
        if value == 'fail':
            raise ValueError('silent failure')
        return 'nobody sees this'

    @expose(AllowAny())
    def pid(self):
        return os.getpid()

    @expose(AllowAny())
    def echo_sender(self, sender):
        sender.send('by sender')

    def on_message(self, event):
        self.events.put((event, threading.current_thread().name))

    def on_shutdown(self):
        self.shut_down += 1


class Named(Service):
    @classmethod
    def name(cls):
        return u'a fixed name'

    @expose(AllowParents())
    def ping(self):
        return id(self)


class Broken(Service):
    def __init__(self, router):
        raise ValueError('broken on purpose')


@takes_router
def call_service(context, service_name, method_name, router, **kwargs):
    """
    Call a service of another context from here.
    """
    return context.call_service(service_name, method_name, **kwargs)


def refusal(_where, service_name, method_name, **kwargs):
    """
    Call a service that is expected to fail, and return class and text of the
    error.
    """
    try:
        return 'returned', _where.call_service(service_name, method_name, **kwargs)
    except mitogen.core.Error:
        error = sys.exc_info()[1]
        return type(error).__name__, str(error)


@takes_router
def pool_facts(router):
    pool = mitogen.service.get_or_create_pool(router=router)
    return pool.size, id(pool), pool is mitogen.service._pool


def pool_exists():
    service = sys.modules.get('mitogen.service')
    return getattr(service, '_pool', None) is not None


@takes_router
def pool_after_fork(router):
    """
    In a forked child: whether there was a copy of a pool, and whether it is used.
    """
    old = mitogen.service._pool
    new = mitogen.service.get_or_create_pool(router=router)
    return old is not None, new is old, new.router is router


def main_thread_name():
    return threading.current_thread().name


def pool_thread_names():
    return sorted(t.name for t in threading.enumerate() if t.name.startswith('mitogen.Pool.'))


@takes_router
def hold_main_thread(ready, router):
    with mitogen.core.Receiver(router) as receiver:
        ready.send(receiver.to_sender())
        return receiver.get(timeout=30).unpickle()


# ---- files

@takes_router
def pushed_file(path, router):
    pool = mitogen.service.get_or_create_pool(router=router)
    return pool.get_service(u'mitogen.service.PushFileService').get(path)


@takes_router
def pushed_file_service(router):
    """
    Have the service loaded.
    """
    pool = mitogen.service.get_or_create_pool(router=router)
    return pool.get_service(u'mitogen.service.PushFileService').name()


def is_pushed(path):
    service = mitogen.service._pool.get_service(u'mitogen.service.PushFileService')
    return path in service._cache


class Sink(object):
    """
    A file that keeps only its size and digest.
    """
    def __init__(self):
        import hashlib
        self.sha = hashlib.sha256()
        self.size = 0

    def write(self, data):
        self.size += len(data)
        self.sha.update(data)


def fetch(context, path):
    """
    Fetch a file from another context; return (ok, metadata, size, digest).
    """
    sink = Sink()
    ok, metadata = mitogen.service.FileService.get(context, path, sink)
    return ok, metadata, sink.size, sink.sha.hexdigest()


def fetch_error(context, path):
    try:
        mitogen.service.FileService.get(context, path, Sink())
    except mitogen.core.CallError:
        return str(sys.exc_info()[1])


class Full(object):
    """
    A file that takes nothing.
    """
    def write(self, data):
        raise IOError('no space left on purpose')


def fetch_into_full(context, path):
    try:
        mitogen.service.FileService.get(context, path, Full())
    except IOError:
        return str(sys.exc_info()[1])


@takes_router
def fetch_for_another(context, path, other, handle, router):
    """
    Try to have a file sent to somebody else.
    """
    sender = mitogen.core.Sender(other, handle)
    try:
        context.call_service(mitogen.service.FileService, 'fetch', path=path, sender=sender)
    except mitogen.core.CallError:
        return str(sys.exc_info()[1])


@takes_router
def start_fetch_and_stall(context, path, router):
    """
    Begin to fetch a file, and never say that anything arrived.
    """
    receiver = mitogen.core.Receiver(router)
    context.call_service(mitogen.service.FileService, 'fetch', path=path, sender=receiver.to_sender())
    return receiver.handle


def fetch_to(context, path, to):
    """
    Fetch a file into one of ours, and return whether all of it came.
    """
    with open(to, 'wb', 0) as fp:
        return mitogen.service.FileService.get(context, path, fp)[0]
