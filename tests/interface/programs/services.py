"""
A program with services, policies and invokers of its own, which serves files, and selects from many
sources.
"""

import io
import logging
import os
import shutil
import tempfile
import threading
import time

import mitogen
import mitogen.core
import mitogen.master
import mitogen.select
import mitogen.service
import mitogen.utils
from mitogen.service import AllowAny, AllowParents, Invoker, Policy, Pool, Service, arg_spec, expose, no_reply


class FromRoot(Policy):
    def is_authorized(self, service, msg):
        return msg.src_id == 0


class StampingInvoker(Invoker):
    def invoke(self, method_name, kwargs, msg):
        kwargs['stamp'] = method_name.upper()
        return super(StampingInvoker, self).invoke(method_name, kwargs, msg)


class Counter(Service):
    def __init__(self, router):
        super(Counter, self).__init__(router)
        self.count = 0

    @expose(policy=AllowAny())
    def bump(self):
        self.count += 1
        return self.count

    @expose(policy=AllowParents())
    @arg_spec({'number': int, 'text': (mitogen.core.UnicodeType, mitogen.core.BytesType)})
    def typed(self, number, text, more=None):
        return number, text, more

    @expose(policy=AllowAny())
    @expose(policy=FromRoot())
    def for_root(self, msg):
        return msg.src_id, msg.auth_id, threading.current_thread().name.startswith('mitogen.Pool.')

    @expose(policy=AllowAny())
    def fails(self):
        raise KeyError('gone')

    @expose(policy=AllowAny())
    def refuses(self):
        raise mitogen.core.CallError('not %s', 'today')

    @no_reply()
    @expose(policy=AllowAny())
    def answers_itself(self, msg):
        msg.reply(u'by hand')

    def hidden(self):
        raise AssertionError()


class Stamped(Service):
    invoker_class = StampingInvoker

    @classmethod
    def name(cls):
        return u'stamped'

    @expose(policy=AllowAny())
    def thing(self, number, stamp):
        return number, stamp

    def on_shutdown(self):
        print('Stamped ends')


class OneAtATime(Service):
    invoker_class = mitogen.service.SerializedInvoker

    def __init__(self, router):
        super(OneAtATime, self).__init__(router)
        self.busy = threading.Lock()

    @expose(policy=AllowAny())
    def work(self, number):
        alone = self.busy.acquire(False)
        if alone:
            time.sleep(0.01)
            self.busy.release()
        return number, alone

    @expose(policy=AllowAny())
    def fails(self):
        raise KeyError('gone')


class ChoosyActivator(mitogen.service.Activator):
    def is_permitted(self, mod_name, class_name, msg):
        return class_name == 'Counter'


class ChoosyPool(Pool):
    activator_class = ChoosyActivator


class Drawer(Service):
    @expose(policy=AllowAny())
    def open(self):
        return 'open'


def outcome(func, *args, **kwargs):
    """
    Return what a function returns, or the name of what it raises.
    """
    try:
        return func(*args, **kwargs)
    except mitogen.core.Error as error:
        text = type(error).__name__
        if isinstance(error, mitogen.core.CallError):
            # The name of another error, if the text begins with one.
            name = str(error).split(':')[0]
            text += ' ' + name if name.isidentifier() or '.' in name and ' ' not in name else ''
        return text


def ask(context, service, method, kwargs):
    return outcome(context.call_service, service, method, **kwargs)


@mitogen.core.takes_router
def pool_of_child(router):
    pool = mitogen.service.get_or_create_pool(router=router)
    return pool.size, pool is mitogen.service.get_or_create_pool(router=router)


def fetch(context, path):
    fp = io.BytesIO()
    ok, metadata = mitogen.service.FileService.get(context, path, fp)
    return ok, sorted(metadata), metadata['size'], oct(metadata['mode']), fp.getvalue()[-6:]


def try_fetch(context, path):
    return outcome(fetch, context, path)


@mitogen.core.takes_router
def pushed(path, router):
    pool = mitogen.service.get_or_create_pool(router=router)
    return bytes(pool.get_service(u'mitogen.service.PushFileService').get(path))


def count_to(number, sender):
    for i in range(number):
        sender.send(i)
    sender.close()
    return number


def call_services(router, one, two):
    print('in the child:', one.call(pool_of_child))
    print(one.call_service(Counter, 'bump'), one.call_service(u'__main__.Counter', 'bump'))
    print(one.call_service(Counter, 'typed', number=1, text=u'x'), one.call_service(Counter, 'typed', number=1, text=b'y', more=[2]))
    for kwargs in {'number': 'x', 'text': u'y'}, {'number': 1}, {'number': 1, 'text': 5}, {'number': 1, 'text': u'', 'other': 1}:
        print(sorted(kwargs), ask(one, Counter, 'typed', kwargs).split()[0])
    print(one.call_service(Counter, 'for_root'), one.call_service(Counter, 'answers_itself'))
    for method in 'fails', 'refuses', 'hidden', 'absent':
        print(method, ask(one, Counter, method, {}))
    print(ask(one, u'__main__.Absent', 'x', {}))
    print('a brother:', two.call(ask, one, u'__main__.Counter', 'bump', {}),
          two.call(ask, one, u'__main__.Counter', 'for_root', {}), two.call(ask, one, u'__main__.Drawer', 'open', {}),
          one.call(ask, two, u'__main__.Counter', 'bump', {}))
    print(sorted(receiver.get().unpickle() for receiver in
                 [one.call_service_async(OneAtATime, 'work', number=i) for i in range(4)]))
    print(ask(one, OneAtATime, 'fails', {}))


def serve(router, one, two):
    stamped = Stamped(router)
    pool = ChoosyPool(router, services=[stamped], size=3)
    me = router.myself()
    print(pool.size, pool.closed, pool.get_service(u'stamped') is stamped, bool(stamped.select))
    for make in lambda: pool.add(Stamped(router)), lambda: Pool(router):
        try:
            make()
        except (mitogen.core.Error, mitogen.service.Error) as error:
            print(type(error).__module__)
    print(one.call(ask, me, u'stamped', 'thing', {'number': 5}))
    print(one.call(ask, me, u'__main__.Counter', 'bump', {}), one.call(ask, me, u'__main__.Drawer', 'open', {}))
    done = mitogen.core.Latch()
    pool.defer(lambda *args, **kwargs: done.put((args, kwargs, threading.current_thread().name[:13])), 1, key=2)
    print(done.get(timeout=10))

    folder = tempfile.mkdtemp()
    try:
        files(router, pool, one, two, folder)
    finally:
        shutil.rmtree(folder)
    pool.stop()
    print(pool.closed, pool._receiver.handle, one.call(ask, me, u'stamped', 'thing', {'number': 5}))


def files(router, pool, one, two, folder):
    me = router.myself()
    path = os.path.join(folder, 'file')
    with open(path, 'wb') as fp:
        fp.write(b'0123456789' * 250000)
    os.chmod(path, 0o640)
    service = mitogen.service.FileService(router)
    pool.add(service)
    print(service.IO_SIZE, service.window_size_bytes)
    print(one.call(try_fetch, me, path))
    service.register(path)
    print(one.call(fetch, me, path))
    service.register_prefix(folder)
    print(two.call(fetch, me, os.path.join(folder, '.', 'file'))[2], two.call(try_fetch, me, folder + '/../etc/passwd'),
          two.call(try_fetch, me, folder + '/absent'))
    one.call_service(mitogen.service.FileService, 'register', path=path)
    print(fetch(one, path)[0::2])

    below = router.local(via=one)
    push = mitogen.service.PushFileService(router=router)
    pool.add(push)
    push.propagate_to(context=below, path=path)
    push.propagate_to(context=two, path=u'/nowhere', overridden_source=b'made up')
    print(below.call(pushed, path)[:10], two.call(pushed, u'/nowhere'))


def choose(router, one, two):
    Select = mitogen.select.Select

    def error_of(func, *args, **kwargs):
        try:
            return func(*args, **kwargs)
        except mitogen.core.Error as error:
            return type(error).__name__, [name for name in dir(Select) if name.endswith('_msg')
                                          and getattr(Select, name) == str(error)]

    latches = [mitogen.core.Latch() for _ in range(3)]
    select = Select()
    print(bool(select), error_of(select.get), list(select))
    select.add(latches[0])
    print(bool(select), error_of(select.remove, latches[1]), error_of(select.get, block=False), error_of(select.get, timeout=0.01))
    latches[0].put('first')
    event = select.get_event(timeout=10)
    print(event.source is latches[0], event.data, bool(select))
    with Select(latches, oneshot=False) as select:
        for number, latch in enumerate(latches * 2):
            latch.put(number)
        print(sorted(select.get(timeout=10) for _ in range(6)), latches[0].notify is not None)
    print(latches[0].notify, error_of(select.get))
    outer, inner = Select(oneshot=False), Select()
    outer.add(inner)
    print(error_of(inner.add, outer), error_of(outer.add, outer))

    receivers = [mitogen.core.Receiver(router) for _ in range(2)]
    calls = Select([context.call_async(count_to, number + 2, receiver.to_sender())
                    for number, (context, receiver) in enumerate(zip((one, two), receivers))])
    print(sorted(msg.unpickle() for msg in calls), [[msg.unpickle() for msg in receiver] for receiver in receivers])
    print(sorted(Select.all(context.call_async(max, 1, context.context_id) for context in (one, two))))
    print(error_of(Select.all, [one.call_async(int, 'x')])[0])


@mitogen.main(log_level='CRITICAL')
def main(router):
    logging.getLogger('mitogen').setLevel(logging.CRITICAL)
    one, two = router.local(name='one'), router.local(name='two')
    call_services(router, one, two)
    serve(router, one, two)
    choose(router, one, two)
    print(sorted(thread.name for thread in threading.enumerate() if 'Pool' in thread.name))
