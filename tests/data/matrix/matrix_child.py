# -*- coding: utf-8 -*-
"""
What the children of matrix_main run, on any Python.
"""

import io
import logging
import os
import sys
import warnings

import mitogen.core
import mitogen.service


def facts():
    return {
        u'version': mitogen.core.to_text('%d.%d' % sys.version_info[:2]),
        u'implementation': mitogen.core.to_text(sys.implementation.name if sys.version_info > (3,) else 'cpython'),
        u'file': mitogen.core.to_text(__file__),
        u'core': mitogen.core.to_text(mitogen.core.CORE),
        u'master': mitogen.is_master,
    }


def echo(value):
    return value


def kinds(values):
    """
    Return for each value whether it is bytes, text or something else here.
    """
    return [u'bytes' if isinstance(value, mitogen.core.BytesType) else
            u'text' if isinstance(value, mitogen.core.UnicodeType) else u'other' for value in values]


def take_keywords(**kwargs):
    return sorted(mitogen.core.to_text(key) for key in kwargs)


def fail(text):
    raise ValueError(text)


def import_all():
    import matrix_pkg.inner
    import matrix_pkg.replaced
    found = [matrix_pkg.inner.VALUE, sys.modules['matrix_pkg.replaced'].value, matrix_pkg.replaced.value]
    try:
        import matrix_plain.module
        found.append(u'imported')
    except ImportError:
        found.append(u'refused')
    return found


def resource():
    """
    Return the content of a resource; resources are a thing of Python 3.7 and newer.
    """
    import matrix_pkg
    if sys.version_info < (3, 7):
        return None
    import importlib.resources
    reader = matrix_pkg.__loader__.get_resource_reader('matrix_pkg')
    if not reader.is_resource('text.txt') or reader.is_resource('no-such.txt'):
        return None
    with warnings.catch_warnings():
        # 3.11 and 3.12 call it deprecated, later versions do not.
        warnings.simplefilter('ignore', DeprecationWarning)
        found = [importlib.resources.is_resource('matrix_pkg', name) for name in ('text.txt', 'no-such.txt')]
    if found != [True, False]:
        return None
    if sys.version_info >= (3, 10):
        return importlib.resources.files('matrix_pkg').joinpath('text.txt').read_bytes()
    with importlib.resources.open_binary('matrix_pkg', 'text.txt') as fp:
        return fp.read()


def speak(text):
    logging.getLogger('matrix').warning(u'logged %s', text)
    sys.stdout.write('printed\n')


class Adder(mitogen.service.Service):
    @mitogen.service.expose(policy=mitogen.service.AllowAny())
    @mitogen.service.arg_spec({'text': mitogen.core.UnicodeType, 'data': mitogen.core.BytesType})
    def join(self, text, data):
        return [text + u'!', data + b'!']


def use_service(context):
    return context.call_service(Adder, 'join', text=u'gr\xfc\xdfe', data=b'\xff\x00')


def fetch(context, path):
    """
    Return the content of a file of another context.
    """
    fp = io.BytesIO()
    ok, metadata = mitogen.service.FileService.get(context, path, fp)
    assert ok and metadata['size'] == len(fp.getvalue())
    return mitogen.core.Blob(fp.getvalue())


def send_numbers(sender, count):
    for number in range(count):
        sender.send(number)
    sender.close()
    return os.getpid()
