"""
Functions that the contexts of ``soak.py`` run.
"""

import hashlib
import io

import mitogen.core
import mitogen.service
from mitogen.core import takes_router

_notes = {}
_inboxes = {}


def echo(value):
    return value


def fail(text):
    raise ValueError(text)


def digest(data):
    return hashlib.sha256(data).hexdigest(), data


def note(key, number):
    _notes.setdefault(key, []).append(number)


def take_notes(key):
    return _notes.pop(key, [])


@takes_router
def open_inbox(key, router):
    _inboxes[key] = mitogen.core.Receiver(router)
    return _inboxes[key].to_sender()


def flood(sender, count, size):
    """
    Send numbered messages; return how many.
    """
    for number in range(count):
        sender.send((number, mitogen.core.Blob(b'f' * size)))
    return count


def drain(key, count, timeout):
    """
    Return the numbers and the size of what came, in the order it came.
    """
    numbers, size = [], 0
    with _inboxes.pop(key) as inbox:
        for _ in range(count):
            number, data = inbox.get(timeout).unpickle()
            numbers.append(number)
            size += len(data)
    return numbers, size


def close_inbox(key):
    inbox = _inboxes.pop(key, None)
    if inbox:
        inbox.close()


class Adder(mitogen.service.Service):
    """
    A service of each context.
    """
    @mitogen.service.expose(mitogen.service.AllowParents())
    @mitogen.service.arg_spec({'a': int, 'b': int})
    def add(self, a, b):
        return a + b


def ask_service(context, name, value):
    """
    Ask the master's service, as a child does.
    """
    return context.call_service(name, 'tell', value=value)


def fetch(context, path):
    out = io.BytesIO()
    ok, _ = mitogen.service.FileService.get(context, path, out)
    return ok, hashlib.sha256(out.getvalue()).hexdigest()


@takes_router
def pushed(path, router):
    pool = mitogen.service.get_or_create_pool(router=router)
    data = pool.get_service(u'mitogen.service.PushFileService').get(mitogen.core.to_text(path))
    return hashlib.sha256(data).hexdigest()


def import_value(name):
    return mitogen.core.import_module(name).VALUE
