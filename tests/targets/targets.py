"""
Functions that the tests call in children, which ask the master for this file. It imports little, so that a child
is quickly done with it.
"""

import logging
import os
import signal
import sys
import threading
import time

import mitogen.core
from mitogen.core import takes_econtext, takes_router

_ran = []


def all_of(*args, **kwargs):
    """
    Return all arguments.
    """
    return args + tuple(kwargs[key] for key in sorted(kwargs))


def identity(*args):
    return args[0] if len(args) == 1 else args


def keywords(**kwargs):
    return kwargs


def add(a, b):
    return a + b


def fail(text='failed on purpose'):
    raise ValueError(text)


def system_exit(code=0):
    raise SystemExit(code)


def keyboard_interrupt():
    raise KeyboardInterrupt()


def note(value):
    """
    Remember that this ran, and return everything that did.
    """
    _ran.append(value)
    return list(_ran)


def notes():
    return list(_ran)


def fail_after_note(value):
    _ran.append(value)
    raise ValueError('failed after %r' % (value,))


def return_call_error():
    return mitogen.core.CallError('returned, not raised')


def return_set():
    return set([1])


def return_lambda():
    return lambda: None


def return_lock():
    return threading.Lock()


def return_bytes(n):
    return b'\xff' * n


def say(sender, value):
    sender.send(value)


def say_raw(sender, data):
    sender.send(data, enc=mitogen.core.Message.ENC_BIN)


def say_all(sender, count):
    for number in range(count):
        sender.send(number)


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def spin(seconds):
    """
    Hold the interpreter with pure Python code.
    """
    end = time.time() + seconds
    count = 0
    while time.time() < end:
        count += 1
    return count


def environ(name=None):
    return dict(os.environ) if name is None else os.environ.get(name)


def sys_attribute(name):
    return getattr(sys, name)


def thread_names():
    return sorted(thread.name for thread in threading.enumerate())


def current_thread_name():
    return threading.current_thread().name


def main_thread_id_and_pid():
    return os.getpid(), os.getppid()


def core_name():
    return getattr(mitogen.core, 'CORE', None)


def mitogen_globals():
    import mitogen
    return {
        'is_master': mitogen.is_master,
        'context_id': mitogen.context_id,
        'parent_id': mitogen.parent_id,
        'parent_ids': list(mitogen.parent_ids),
        'version': mitogen.__version__,
        'main': mitogen.main()(fail) is None,
    }


def command_line():
    with open('/proc/self/cmdline', 'rb') as fp:
        return fp.read()


def module_file(name):
    return getattr(mitogen.core.import_module(name), '__file__', None)


def call(module, function, *args):
    """
    Import a module here and call a function of it.
    """
    return getattr(mitogen.core.import_module(module), function)(*args)


def call_method(module, name, method, *args):
    """
    Call a method of an object that a module has.
    """
    getattr(getattr(mitogen.core.import_module(module), name), method)(*args)


def call_in_threads(module, count):
    """
    Import a module on several threads at once; return how many had it.
    """
    done = []
    start = threading.Event()

    def run():
        start.wait()
        done.append(mitogen.core.import_module(module).__name__)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    start.set()
    for thread in threads:
        thread.join(30)
    return len(done)


def import_error(name):
    """
    Return (class name, text) of what an import raises, or None.
    """
    try:
        mitogen.core.import_module(name)
    except Exception:
        error = sys.exc_info()[1]
        return type(error).__name__, str(error)


def log(name, level, message, *args):
    logging.getLogger(name).log(level, message, *args)


def reload_module(name):
    import importlib
    # On Python 2 it is a built-in function.
    module = getattr(importlib, 'reload', None) or reload  # noqa: F821
    module = module(sys.modules[name])
    return module.__name__, module.__package__ or name.rpartition('.')[0], hasattr(module, '__path__')


def print_line(text):
    print(text)


def write_fd(fd, data):
    os.write(fd, data)


def write_fd_whole(fd, data):
    while data:
        data = data[os.write(fd, data):]


def write_stdout(size):
    """
    Write many bytes to descriptor 1; return how many one loop of os.write() wrote.
    """
    line = b'x' * 1023 + b'\n'
    total = 0
    while total < size:
        total += os.write(1, line)
    return total


def run_shell(command):
    """
    Run a shell command whose output goes where this process's own goes; return its exit status.
    """
    import subprocess
    return subprocess.call(['/bin/sh', '-c', command])


def blocking_modes():
    return [mitogen.core.get_blocking(fd) for fd in (0, 1, 2)]


@takes_econtext
def econtext_class(econtext):
    return type(econtext).__name__


@takes_router
def router_class(router):
    return '%s.%s' % (type(router).__module__, type(router).__name__)


@takes_econtext
def given_econtext(econtext):
    return econtext if isinstance(econtext, int) else 'ours'


@takes_router
def router_size_limit(router):
    return router.max_message_size


@takes_router
def router_is_econtexts(router, other=None):
    return router is not None


class Holder(object):
    @classmethod
    def class_method(cls, value):
        return cls.__name__, value

    @classmethod
    @takes_econtext
    def class_method_with_econtext(cls, econtext):
        return type(econtext).__name__

    def method(self):
        pass



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
def call_context(context_id, function, *args, **kwargs):
    """
    Call a function of this module in another context, by id, and return the result or the error's text.
    """
    import mitogen.parent
    context = mitogen.parent.Context(kwargs.pop('router'), context_id)
    try:
        return 'ok', context.call(globals()[function], *args)
    except mitogen.core.CallError:
        return 'CallError', str(sys.exc_info()[1])
    except mitogen.core.ChannelError:
        return 'ChannelError', str(sys.exc_info()[1])


def call_context_and_raise(context_id, function, *args, **kwargs):
    """
    The same, but errors are raised.
    """
    import mitogen.parent
    return mitogen.parent.Context(kwargs.pop('router'), context_id).call(globals()[function], *args)


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
    receiver = chain.call_async(sleep, 60)
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


def send_numbers(sender, count, result):
    for i in range(count):
        sender.send(i)
    sender.close()
    return result


def send_bytes(sender, size, count):
    data = b'z' * size
    for _ in range(count):
        sender.send(data, enc=mitogen.core.Message.ENC_BIN)
    sender.close()


@takes_econtext
def receive_until_closed(ready, econtext):
    """
    Make a receiver here, send a sender for it to `ready`, and return what arrives until it is closed.
    """
    receiver = mitogen.core.Receiver(econtext.router)
    ready.send(receiver.to_sender())
    return [message.unpickle() for message in receiver]


@takes_econtext
def detach(sender, econtext):
    """
    Leave the parent; tell it before how to find this process, and stay until killed.
    """
    sender.send(os.getpid())
    econtext.detach()


def log_on_io_logger(name):
    """
    Log on the per-I/O logger, which never leaves the process, and then on another one.
    """
    logging.getLogger('mitogen.io').setLevel(logging.DEBUG)
    logging.getLogger('mitogen.io').info('stays here')
    logging.getLogger(name).warning('comes through')






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


def descriptors():
    found = []
    for name in os.listdir('/proc/self/fd'):
        try:
            found.append(os.readlink('/proc/self/fd/' + name))
        except OSError:
            pass
    return found


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError('no text')

    __repr__ = __str__


def raise_unprintable():
    raise Unprintable()


def ignore_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def leave_threads():
    """
    Leave two threads that never end by themselves, one of them no daemon.
    """
    for daemon in (True, False):
        thread = threading.Thread(target=time.sleep, args=(3600,))
        thread.daemon = daemon
        thread.start()


@takes_econtext
def shut_own_broker_down(econtext):
    econtext.broker.shutdown()


def read_stdin():
    return os.read(0, 100)


def log_from_threads(threads, count):
    def run(number):
        for i in range(count):
            logging.getLogger('threads').info('record %d.%d', number, i)

    running = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


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


def say_and_spin(sender, path):
    """
    Tell a sender that this runs, then hold the interpreter with pure Python code, until there is a file.
    """
    sender.send(None)
    count = 0
    while True:
        for _ in range(100000):
            count += 1
        if os.path.exists(path):
            return count


def context_facts(context):
    return context.context_id, context.name


@takes_econtext
def master_context(econtext):
    return econtext.master.context_id, econtext.master.name


def attribute_of_module(module, name):
    __import__(module)
    return getattr(sys.modules[module], name)


def source_of(module):
    __import__(module)
    return sys.modules[module].__spec__.loader.get_source(module)


def source_of_core():
    import inspect
    return inspect.getsource(mitogen.core)


def loaded_modules():
    return sorted(sys.modules)


@mitogen.core.takes_econtext
def detach_log_and_measure(path, econtext):
    """
    Leave the parent, log at every level, and write to a file how often the process was scheduled in the second that follows.
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


def resident():
    """
    Return how many bytes of memory this process has.
    """
    with open('/proc/self/statm') as fp:
        return int(fp.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def peak():
    """
    Return how many bytes of memory this process has had at most.
    """
    with open('/proc/self/status') as fp:
        return [int(line.split()[1]) << 10 for line in fp if line.startswith('VmHWM')][0]


def call_sleep(context, seconds):
    """
    Have another context sleep, and wait for it.
    """
    return context.call(sleep, seconds)


@takes_econtext
def is_detached(econtext):
    return econtext.detached


def set_pending_max(size):
    """
    Say how many bytes of answers may wait for one child of this context.
    """
    import mitogen.parent
    mitogen.parent.Throttle.pending_max = size


@takes_econtext
def listen_at(path, econtext):
    """
    Let clients join by way of this context.
    """
    import mitogen.parent
    import mitogen.unix
    mitogen.parent.upgrade_router(econtext)
    mitogen.unix.Listener.build_stream(econtext.router, path=path)


_receivers = []


@takes_router
def make_receiver(router):
    """
    Return a sender to a receiver that stays here.
    """
    receiver = mitogen.core.Receiver(router)
    _receivers.append(receiver)
    return receiver.to_sender()


def take_two():
    receiver = _receivers.pop(0)
    return [receiver.get(timeout=60).decode() for _ in range(2)]


def send_to(sender, value):
    sender.send(value)


def send_bytes_to(sender, data):
    sender.send(data, enc=mitogen.core.Message.ENC_BIN)


def call_note(context):
    import mitogen.parent
    mitogen.parent.CallChain(context).call(note, 1)


@takes_econtext
def make_child(econtext):
    """
    Start a child of this context, and return it.
    """
    import mitogen.parent
    mitogen.parent.upgrade_router(econtext)
    return econtext.router.local()
