"""
Functions that most tests call in children, which ask the master for this file: the less is in it,
and the less it imports, the sooner a child is done with it. Others are in files by subject:
``module_targets``, ``output_targets``, ``process_targets`` and ``tree_targets``. Tests find them by
way of this one, too; a child is sent the one they are in.
"""

import sys
import time

import mitogen.core
from mitogen.core import takes_econtext, takes_router

#: Files that have more functions.
MORE = ('module_targets', 'output_targets', 'process_targets', 'tree_targets')


def __getattr__(name):
    for other in MORE:
        if not name.startswith('__'):
            __import__(other)
            if name in vars(sys.modules[other]):
                return getattr(sys.modules[other], name)
    raise AttributeError(name)


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


def return_slice():
    return slice(1)


def return_lambda():
    return lambda: None


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


def core_name():
    return getattr(mitogen.core, 'CORE', None)


def module_file(name):
    return getattr(mitogen.core.import_module(name), '__file__', None)


def call_in_threads(module, count):
    """
    Import a module on several threads at once; return how many had it.
    """
    import threading
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


@takes_econtext
def given_econtext(econtext):
    return econtext if isinstance(econtext, int) else 'ours'


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
    Make a receiver here, send a sender for it to `ready`, and return what arrives until it is
    closed.
    """
    receiver = mitogen.core.Receiver(econtext.router)
    ready.send(receiver.to_sender())
    return [message.unpickle() for message in receiver]


def context_facts(context):
    return context.context_id, context.name


def attribute_of_module(module, name):
    __import__(module)
    return getattr(sys.modules[module], name)


def call_sleep(context, seconds):
    """
    Have another context sleep, and wait for it.
    """
    return context.call(sleep, seconds)


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
