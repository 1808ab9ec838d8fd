"""
Functions for children about their place in the tree: routers, contexts, authority, leaving it.
"""

import os
import sys
import time

import mitogen.core
import targets
from mitogen.core import takes_econtext, takes_router


@takes_econtext
def econtext_class(econtext):
    return type(econtext).__name__


@takes_router
def router_class(router):
    return '%s.%s' % (type(router).__module__, type(router).__name__)


@takes_router
def router_size_limit(router):
    return router.max_message_size


@takes_router
def router_is_econtexts(router, other=None):
    return router is not None


@takes_router
def upgrade_twice_and_start(router):
    """
    Turn this router into a parent's, twice, and start a child with it; return what was seen.
    """
    import mitogen.parent
    econtext = find_econtext(router)
    mitogen.parent.upgrade_router(econtext)
    same = econtext.router is router
    mitogen.parent.upgrade_router(econtext)
    return {
        'class': '%s.%s' % (type(router).__module__, type(router).__name__),
        'same': same and econtext.router is router,
        'handles': sorted(set((100, 103, 104, 108, 109, 112)) & set(router._handle_map)),
        'child_pid': econtext.router.local().call(os.getpid),
    }


_econtext = []


@takes_econtext
def remember_econtext(econtext):
    _econtext[:] = [econtext]


def find_econtext(router):
    return _econtext[0]


@takes_econtext
def start_local_child(econtext, name=None):
    import mitogen.parent
    mitogen.parent.upgrade_router(econtext)
    context = econtext.router.local(name=name)
    return context.context_id


@takes_econtext
def connect_via(context_id, econtext):
    """
    Have another context start a child, and return its id and that of its parent.
    """
    import mitogen.parent
    mitogen.parent.upgrade_router(econtext)
    child = econtext.router.local(via=econtext.router.context_by_id(context_id))
    return child.context_id, child.via.context_id


@takes_econtext
def context_of_another_router(number, econtext):
    return mitogen.core.Context(mitogen.core.Router(econtext.broker), number)


@takes_econtext
def allocate_ids(count, econtext):
    import mitogen.parent
    mitogen.parent.upgrade_router(econtext)
    return [econtext.router.allocate_id() for _ in range(count)]


def context_id():
    import mitogen
    return mitogen.context_id


def parent_of_context():
    import mitogen
    return mitogen.parent_id


@takes_router
def set_limit(name, value, router):
    setattr(router.limits, name, value)


@takes_econtext
def kept_answers(econtext):
    importer = econtext.importer
    return len(importer._cache), len(importer._resource_requester._cache)


@takes_router
def unread_bytes(router):
    return max(stream.protocol.pending_bytes() for stream in router.get_streams())


@takes_router
def is_lost(context_id, router):
    return bool(router._lost_ids and context_id in router._lost_ids)


@takes_router
def wait_for_loss(context_id, router):
    """
    Return what a receiver says that waits for a context, which is lost already.
    """
    receiver = mitogen.core.Receiver(router, respondent=router.context_by_id(context_id))
    try:
        receiver.get(timeout=60)
    except mitogen.core.ChannelError:
        return sys.exc_info()[1].args[0]


@takes_router
def call_context(context_id, function, *args, **kwargs):
    """
    Call a function of ``targets`` in another context, by id, and return the result or the error's
    text.
    """
    import mitogen.parent
    context = mitogen.parent.Context(kwargs.pop('router'), context_id)
    try:
        return 'ok', context.call(getattr(targets, function), *args)
    except mitogen.core.CallError:
        return 'CallError', str(sys.exc_info()[1])
    except mitogen.core.ChannelError:
        return 'ChannelError', str(sys.exc_info()[1])


def call_context_and_raise(context_id, function, *args, **kwargs):
    """
    Do as `call_context`, but raise the errors.
    """
    import mitogen.parent
    return mitogen.parent.Context(kwargs.pop('router'), context_id).call(getattr(targets, function), *args)


call_context_and_raise.mitogen_takes_router = True


@takes_econtext
def ask_to_detach(answer_to, econtext):
    """
    Send DETACHING to the parent without acting on it; the answer goes to a sender.
    """
    receiver = econtext.parent.send_async(mitogen.core.Message(handle=mitogen.core.DETACHING))
    try:
        answer_to.send(receiver.get(timeout=1).unpickle())
    except mitogen.core.TimeoutError:
        receiver.close()


@takes_router
def wait_on_context(context_id, started, router):
    """
    Start a long call in another context, tell `started`, and return the text of how it ended.
    """
    import mitogen.parent
    context = router.context_by_id(context_id)
    # A core Context has no call(); the parent's is the same thing with one.
    chain = mitogen.parent.CallChain(context)
    receiver = chain.call_async(targets.sleep, 60)
    started.send(None)
    try:
        receiver.get().unpickle()
    except mitogen.core.ChannelError:
        return str(sys.exc_info()[1])


@takes_router
def try_to_shut_down(context_id, router):
    """
    Send SHUTDOWN to a context over which this one has no authority.
    """
    router.route(mitogen.core.Message(dst_id=context_id, handle=mitogen.core.SHUTDOWN))


@takes_router
def send_raw(dst_id, handle, data, router, src_id=None, auth_id=None):
    fields = {'dst_id': dst_id, 'handle': handle, 'data': data}
    if src_id is not None:
        fields['src_id'] = src_id
    if auth_id is not None:
        fields['auth_id'] = auth_id
    router.route(mitogen.core.Message(**fields))


@takes_router
def stream_neighbour(context_id, router):
    stream = router.stream_by_id(context_id)
    return stream and stream.protocol.remote_id


@takes_econtext
def detach(sender, econtext):
    """
    Leave the parent; tell it before how to find this process, and stay until killed.
    """
    sender.send(os.getpid())
    econtext.detach()


@takes_econtext
def time_of_timer(seconds, econtext):
    """
    Return how long a timer of this context's broker took.
    """
    import mitogen.parent
    mitogen.parent.upgrade_router(econtext)
    broker = econtext.broker
    latch = mitogen.core.Latch()
    start = mitogen.core.now()
    broker.defer(broker.timers.schedule, start + seconds, lambda: latch.put(mitogen.core.now() - start))
    return latch.get(timeout=10)


@takes_econtext
def shut_own_broker_down(econtext):
    econtext.broker.shutdown()


@takes_econtext
def detach_and_write(sender, path, econtext):
    """
    Leave the parent, and write to a file what is known of it afterwards.
    """
    import mitogen
    sender.send(os.getpid())
    econtext.detach()
    while mitogen.parent_ids:
        time.sleep(0.001)
    econtext.detach()
    with open(path, 'w') as fp:
        fp.write('%s %s %s.' % (mitogen.parent_id, mitogen.parent_ids, econtext.detached))


@takes_econtext
def master_context(econtext):
    return econtext.master.context_id, econtext.master.name


@mitogen.core.takes_econtext
def detach_log_and_measure(path, econtext):
    """
    Leave the parent, log at every level, and write to a file how often the process was scheduled in
    the second that follows.
    """
    import logging
    import resource
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger('mitogen').setLevel(logging.DEBUG)
    econtext.detach()
    log = logging.getLogger('targets')
    for level in (logging.DEBUG, logging.INFO, logging.ERROR):
        log.log(level, 'nobody hears this')
    usage = resource.getrusage(resource.RUSAGE_SELF)
    before = usage.ru_nvcsw + usage.ru_nivcsw
    time.sleep(1)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open(path, 'w') as fp:
        fp.write('%d.' % (usage.ru_nvcsw + usage.ru_nivcsw - before))


@mitogen.core.takes_econtext
def send_much_and_end(sender, size, econtext):
    """
    Send more than any buffer holds, and have the broker end before it can be written.
    """
    sender.send(b'z' * size)
    econtext.broker.shutdown()


@takes_econtext
def is_detached(econtext):
    return econtext.detached


def set_pending_max(size):
    """
    Say how many bytes of answers may wait for one child of this context.
    """
    import mitogen.parent
    mitogen.parent.Throttle.pending_max = size


def set_absent_max(count):
    """
    Say how many answers that there is no such thing this context keeps.
    """
    import mitogen.parent
    mitogen.parent.ABSENT_MAX = count


@takes_econtext
def count_known_modules(econtext):
    return len(econtext.importer._cache)


@takes_econtext
def listen_at(path, econtext):
    """
    Let clients join by way of this context.
    """
    import mitogen.parent
    import mitogen.unix
    mitogen.parent.upgrade_router(econtext)
    mitogen.unix.Listener.build_stream(econtext.router, path=path)


def call_note(context):
    import mitogen.parent
    mitogen.parent.CallChain(context).call(targets.note, 1)


@takes_econtext
def make_child(econtext):
    """
    Start a child of this context, and return it.
    """
    import mitogen.parent
    mitogen.parent.upgrade_router(econtext)
    return econtext.router.local()


@takes_router
def forget_handle(handle, router):
    router.del_handler(handle)
