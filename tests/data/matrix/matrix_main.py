# -*- coding: utf-8 -*-
"""
A master on any Python, and one after the other children (each with a child of its own) on any others. Its arguments are
pairs of interpreters, one for a child and one for that one's child. For each pair it prints one line of JSON: what it found.
"""

from __future__ import print_function

import json
import logging
import os
import sys
import tempfile
import time

import matrix_child
import mitogen.core
import mitogen.master
import mitogen.select
import mitogen.service

VALUES = [
    b'', b'abc\xff\x00', u'', u'gr\xfc\xdfe \u20ac', 0, -1, 2 ** 31, 2 ** 63, -(2 ** 70), 1.5, True, False, None,
    [], [1, [2, [3]]], {u'k': [u'v', b'w']}, (1, u'x', (b'y',)), {1: None},
]


class Records(logging.Handler):
    def __init__(self):
        logging.Handler.__init__(self)
        self.found = []

    def emit(self, record):
        self.found.append((record.name, record.getMessage()))


def name_of_main():
    """
    Runs in the child, which fetches this program for it.
    """
    return mitogen.core.to_text(__name__), u'VALUES' in globals()


def wait_for(predicate):
    deadline = time.time() + 30
    while not predicate() and time.time() < deadline:
        time.sleep(0.01)
    return bool(predicate())


def try_context(router, context, found):
    found['facts'] = context.call(matrix_child.facts)
    found['values'] = all(context.call(matrix_child.echo, value) == value for value in VALUES)
    back = context.call(matrix_child.echo, VALUES)
    found['types'] = back == VALUES and all(
        type(got) is type(sent) or isinstance(sent, mitogen.core.integer_types) for got, sent in zip(back, VALUES))
    found['kinds'] = context.call(matrix_child.kinds, [b'', b'x', u'', u'\u20ac', 5])
    found['large'] = context.call(matrix_child.echo, mitogen.core.Blob(b'\x00\xff' * 300000)) == b'\x00\xff' * 300000
    found['keywords'] = context.call(matrix_child.take_keywords, one=1, two=2)
    try:
        context.call(matrix_child.fail, u'gr\xfc\xdfe')
    except mitogen.core.CallError:
        found['error'] = u'ValueError' in sys.exc_info()[1].args[0]
    found['imports'] = context.call(matrix_child.import_all)
    resource = context.call(matrix_child.resource)
    found['resource'] = None if resource is None else resource.decode('ascii')
    found['main'] = context.call(name_of_main)

    receiver = mitogen.core.Receiver(router)
    done = context.call_async(matrix_child.send_numbers, receiver.to_sender(), 100)
    found['stream'] = [message.unpickle() for message in receiver] == list(range(100))
    found['pid'] = done.get().unpickle() != os.getpid()
    receiver.close()

    # A service here and there.
    answer = [u'gr\xfc\xdfe!', b'\xff\x00!']
    found['service_up'] = context.call(matrix_child.use_service, router.myself()) == answer
    found['service_down'] = matrix_child.use_service(context) == answer

    # A file there and back.
    fd, path = tempfile.mkstemp()
    try:
        content = os.urandom(200000)
        with os.fdopen(fd, 'wb') as fp:
            fp.write(content)
        files = router.files
        files.register(mitogen.core.to_text(path))
        found['file_up'] = context.call(matrix_child.fetch, router.myself(), mitogen.core.to_text(path)) == content
        context.call_service(mitogen.service.FileService, 'register', path=mitogen.core.to_text(path))
        found['file_down'] = matrix_child.fetch(context, mitogen.core.to_text(path)) == content
    finally:
        os.unlink(path)


def main(router, pythons):
    router.files = mitogen.service.FileService(router)
    pool = mitogen.service.Pool(router, services=[matrix_child.Adder(router), router.files], size=2)
    try:
        for python, other in zip(pythons[::2], pythons[1::2]):
            records = Records()
            logging.getLogger().addHandler(records)
            print(json.dumps(try_pair(router, python, other, records)))
            logging.getLogger().removeHandler(records)
    finally:
        pool.stop()


def try_pair(router, python, other, records):
    found = {'master': '%d.%d' % sys.version_info[:2], 'core': mitogen.core.CORE}
    # Without the variable the child has no package of its own: it is sent the core.
    clean = ['env', '-u', 'PYTHONPATH', '-u', 'MITOGEN_CORE']
    strict = ['-W', 'error']
    child = router.local(name=u'child', python_path=clean + [python] + strict)
    try_context(router, child, found.setdefault('child', {}))
    grandchild = router.local(name=u'grandchild', python_path=clean + [other] + strict, via=child)
    try_context(router, grandchild, found.setdefault('grandchild', {}))

    for context in child, grandchild:
        context.call(matrix_child.speak, u'gr\xfc\xdfe')
    found['logs'] = wait_for(lambda: all(
        ('matrix.[%s]' % name, u'logged gr\xfc\xdfe') in records.found and
        ('stdout.[%s]' % name, u'printed') in records.found for name in ('child', 'child.grandchild')))

    pids = [child.call(os.getpid), grandchild.call(os.getpid)]
    child.shutdown(wait=True)
    found['gone'] = wait_for(lambda: not any(is_running(pid) for pid in pids))
    # A warning that cannot be raised, as from a destructor, is printed.
    found['complaints'] = [record for record in records.found if record[0].startswith('stderr.')]
    return found


def is_running(pid):
    try:
        with open('/proc/%d/stat' % pid) as fp:
            return fp.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except (IOError, OSError):
        return False


if __name__ == '__main__':
    logging.getLogger().setLevel(logging.INFO)
    with mitogen.master.Router() as the_router:
        main(the_router, sys.argv[1:])
