# -*- coding: utf-8 -*-
"""
Makes the corpus of the codec: one value that holds something of every kind,
as each interpreter's own picklers write it.

    python2.7 tests/fuzz/codec_corpus.py
    python3.6 tests/fuzz/codec_corpus.py

adds files named after the interpreter, the pickler and the protocol to
tests/fuzz/corpus/codec/. Each holds several pickles that share one memo, as a
message does. Runs on any Python; imports nothing of the project.
"""

import io
import os
import pickle
import sys
import types

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'corpus', 'codec')


def plain_sample():
    """
    Return the value without anything that needs a global of ours.
    """
    shared = [u'shared', 1]
    around = []
    around.append(around)
    ring = {u'name': u'ring'}
    ring[u'self'] = ring
    link = []
    knot = (link, 1)
    link.append(knot)
    long_link = []
    long_knot = (1, 2, 3, long_link)
    long_link.append(long_knot)
    return {
        u'none': None,
        u'truth': [True, False],
        u'ints': [0, 1, 255, 256, 65535, 65536, -1, -129, 2 ** 31 - 1, -(2 ** 31), 2 ** 31],
        u'longs': [2 ** 63 - 1, -(2 ** 63), 2 ** 63, 2 ** 64, -(2 ** 71), 2 ** 100, -(2 ** 100), 7 ** 900],
        u'floats': [0.0, -0.0, 1.5, -1e300, 1e-320, float('inf'), float('-inf'), 3.141592653589793],
        u'bytes': [b'', b'x', b'quote\'"\\', bytes(bytearray(range(256))), b'long' * 100],
        u'text': [u'', u'x', u'Gr\xfc\xdfe', u'\u20ac \\u20ac \\ \r\n\0\x1a', u'\U0001f600', u'lang' * 100],
        u'lists': [[], [1], [1, 2], list(range(30))],
        u'tuples': [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((((),),),)],
        u'dicts': [{}, {u'k': u'v'}, {u'a': 1, u'b': 2}, {(1, b'k'): None}, dict((i, str(i).encode()) for i in range(30))],
        u'again': [shared, shared, (shared, shared)],
        u'around': around,
        u'ring': ring,
        u'knot': knot,
        u'long_knot': long_knot,
    }


def special_sample(core):
    """
    Return the values that need globals, made from a namespace of classes.
    """
    context = core.Context(None, 3, u'ctx')
    return [
        core.Blob(b''), core.Blob(b'blob\x00\xff'), core.Secret(u''), core.Secret(u's\xe9cret'),
        core.Kwargs({}), core.Kwargs({u'key': [1]}), context, context, core.Context(None, 0, None),
        core.Sender(core.Context(None, 2, None), 5),
    ]


def error_sample(core):
    return core.CallError(u'builtins.ValueError: \u20ac')


def make_core():
    """
    Return a module mitogen.core, registered, of classes that pickle as the
    real ones do; and Blob and Secret once more, as classes without a
    __reduce__ of their own would pickle.
    """
    text = type(u'')
    core = types.ModuleType('mitogen.core')
    parent = types.ModuleType('mitogen')
    parent.core = core
    sys.modules['mitogen'] = parent
    sys.modules['mitogen.core'] = core

    class Blob(bytes):
        def __reduce__(self):
            return (Blob, (bytes(self),))

    class Secret(text):
        def __reduce__(self):
            return (Secret, (text(self),))

    class Kwargs(dict):
        def __reduce__(self):
            return (Kwargs, (dict(self),))

    class CallError(Exception):
        def __reduce__(self):
            return (_unpickle_call_error, (self.args[0],))

    class Context(object):
        def __init__(self, router, context_id, name):
            self.state = (context_id, name)

        def __reduce__(self):
            return (_unpickle_context, self.state)

    class Sender(object):
        def __init__(self, context, dst_handle):
            self.state = (context.state[0], dst_handle)

        def __reduce__(self):
            return (_unpickle_sender, self.state)

    def _unpickle_call_error(s):
        pass

    def _unpickle_context(context_id, name):
        pass

    def _unpickle_sender(context_id, dst_handle):
        pass

    for obj in (Blob, Secret, Kwargs, CallError, Context, Sender,
                _unpickle_call_error, _unpickle_context, _unpickle_sender):
        obj.__module__ = 'mitogen.core'
        obj.__qualname__ = obj.__name__
        setattr(core, obj.__name__, obj)
    return core


def without_reduce(core):
    """
    Return instances of a Blob and a Secret that leave pickling to the default.
    """
    class Blob(bytes):
        pass

    class Secret(type(u'')):
        pass

    for obj in (Blob, Secret):
        obj.__module__ = 'mitogen.core'
        obj.__qualname__ = obj.__name__
        setattr(core, obj.__name__, obj)
    return [Blob(b'blob'), Secret(u'secret')]


def main():
    # The pickler in pure Python, and the one in C.
    picklers = {'pickle': getattr(pickle, '_Pickler', pickle.Pickler)}
    try:
        import cPickle
        picklers['cpickle'] = cPickle.Pickler
    except ImportError:
        picklers['cpickle'] = pickle.Pickler
    if not os.path.isdir(FOLDER):
        os.makedirs(FOLDER)
    for name, make_pickler in sorted(picklers.items()):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            core = make_core()
            fp = io.BytesIO()
            pickler = make_pickler(fp, protocol)
            pickler.dump(plain_sample())
            pickler.dump(special_sample(core))
            pickler.dump(error_sample(core))
            if protocol >= 2:
                pickler.dump(without_reduce(core))
            path = 'py%d.%d-%s-%d.pickle' % (sys.version_info[:2] + (name, protocol))
            with open(os.path.join(FOLDER, path), 'wb') as out:
                out.write(fp.getvalue())


if __name__ == '__main__':
    main()
