"""
Builds and loads the codec by itself, as a private extension module, for
test_codec.py and codec_fuzz.py, with the files of the engine that it
needs for large values; and gives it classes to work with.

The classes are stand-ins with no more behaviour than the codec relies on. So
the codec's tests need nothing else of the project.
"""

import glob
import importlib.util
import io
import os
import pickle
import shlex
import subprocess
import sys
import sysconfig

import places

SOURCES = os.path.join(places.ROOT, '_mitogen_core')
ENGINE = os.path.join(SOURCES, 'engine')
CORPUS = os.path.join(places.CORPUS, 'codec')

WARNINGS = ('-std=c11', '-Wall', '-Wextra')


def build(folder, flags=()):
    """
    Compile the module into a folder and return it, loaded. FileNotFoundError
    when there is no compiler or no header, CalledProcessError when it fails.
    """
    compiler = shlex.split(os.environ.get('CC') or sysconfig.get_config_var('CC') or 'cc')
    include = sysconfig.get_path('include')
    if not os.path.exists(os.path.join(include, 'Python.h')):
        raise FileNotFoundError('Python.h')
    target = os.path.join(str(folder), '_codec_test' + sysconfig.get_config_var('EXT_SUFFIX'))
    sources = sorted(glob.glob(os.path.join(SOURCES, 'codec', '*.c'))) + [os.path.join(places.LIB, 'codec_testmod.c')]
    sources += [os.path.join(ENGINE, name) for name in ('base/alloc.c', 'base/block.c', 'wire/peek.c')]
    command = compiler + ['-shared', '-fPIC', '-g', '-O1'] + list(WARNINGS) + list(flags)
    # With this value, the short byte strings of tests count as long ones.
    command += ['-DMG_LANDING_MIN=4']
    if sysconfig.get_platform().startswith('macosx'):
        command += ['-undefined', 'dynamic_lookup']
    subprocess.check_call(command + ['-D_GNU_SOURCE', '-I' + include, '-I' + SOURCES, '-I' + ENGINE] + sources + ['-o', target])
    return load(target)


def load(path):
    """
    Load a built module: each call makes a new one, with state of its own.
    """
    spec = importlib.util.spec_from_file_location('_codec_test', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Blob(bytes):
    def __reduce__(self):
        return (Blob, (bytes(self),))


class Secret(str):
    def __str__(self):
        return str.__str__(self)

    def __reduce__(self):
        return (Secret, (''.join(self),))


class Kwargs(dict):
    def __init__(self, dct):
        for key, value in dct.items():
            self[key.decode() if isinstance(key, bytes) else key] = value

    def __reduce__(self):
        return (Kwargs, (dict(self),))


class StreamError(Exception):
    pass


class CallError(Exception):
    def __repr__(self):
        return 'CallError(%r)' % (self.args,)

    def __reduce__(self):
        return (_unpickle_call_error, (self.args[0],))


class Context(object):
    auth_id = None

    def __init__(self, router, context_id, name=None):
        self.router = router
        self.context_id = context_id
        self.name = name

    def __repr__(self):
        return 'Context(%r, %r)' % (self.context_id, self.name)

    def __reduce__(self):
        return (_unpickle_context, (self.context_id, self.name))

    def __eq__(self, other):
        return isinstance(other, Context) and (self.context_id, self.name) == (other.context_id, other.name)

    def __hash__(self):
        return hash((self.context_id, self.name))


class Sender(object):
    def __init__(self, context, dst_handle):
        self.context = context
        self.dst_handle = dst_handle

    def __repr__(self):
        return 'Sender(%r, %r)' % (self.context, self.dst_handle)

    def __reduce__(self):
        return (_unpickle_sender, (self.context.context_id, self.dst_handle))

    def __eq__(self, other):
        return isinstance(other, Sender) and (self.context, self.dst_handle) == (other.context, other.dst_handle)

    def __hash__(self):
        return hash(self.dst_handle)


def _unpickle_call_error(text):
    return CallError(text)


def _unpickle_context(context_id, name):
    return Context(None, context_id, name)


def _unpickle_sender(context_id, dst_handle):
    return Sender(Context(None, context_id), dst_handle)


def _unpickle_buffer(*args):
    data, kind, dtype, shape = args
    return (data, kind, dtype, shape)


def fallback_pickle(*objs):
    """
    Pickle as the pure core does, short of its care for errors: the standard pickler,
    with one memo for all objects.
    """
    return standard_pickle(2, *objs)


def standard_pickle(protocol, *objs, **kwargs):
    """
    Return the objects as the standard library writes them, the classes here
    under the name of the module that they stand in for.
    """
    pickler = kwargs.pop('pickler', pickle.Pickler)
    saved = dict((name, sys.modules.get(name)) for name in ('mitogen', 'mitogen.core'))
    fp = io.BytesIO()
    sys.modules['mitogen'] = sys.modules['mitogen.core'] = sys.modules[__name__]
    try:
        writer = pickler(fp, protocol)
        for obj in objs:
            writer.dump(obj)
    finally:
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return fp.getvalue()


def standard_reader(base):
    """
    Return a subclass of a standard library's unpickler that permits the same
    globals as the codec does.
    """
    class Reader(base):
        def __init__(self, data):
            base.__init__(self, io.BytesIO(data), fix_imports=False, encoding='bytes')

        def find_class(self, module, name):
            try:
                return STANDARD[module, name]
            except KeyError:
                raise pickle.UnpicklingError('%s.%s' % (module, name))
    return Reader


for _obj in (Blob, Secret, Kwargs, CallError, Context, Sender, _unpickle_call_error, _unpickle_context, _unpickle_sender):
    _obj.__module__ = 'mitogen.core'

CONFIG = {
    'Blob': Blob,
    'Secret': Secret,
    'Kwargs': Kwargs,
    'CallError': CallError,
    'Context': Context,
    'Sender': Sender,
    'StreamError': StreamError,
    'UnpicklingError': pickle.UnpicklingError,
    'unpickle_call_error': _unpickle_call_error,
    'unpickle_context': Context,
    'unpickle_sender': lambda router, context_id, handle: Sender(Context(router, context_id), handle),
    'take_buffer_apart': lambda obj: None,
    'unpickle_buffer': _unpickle_buffer,
    'find_value': lambda module, name: None,
    'fallback_pickle': fallback_pickle,
}

#: Globals for the standard library's reader, which ours permits.
STANDARD = {
    ('mitogen.core', 'Blob'): Blob,
    ('mitogen.core', 'Secret'): Secret,
    ('mitogen.core', 'Kwargs'): Kwargs,
    ('mitogen.core', '_unpickle_call_error'): _unpickle_call_error,
    ('mitogen.core', '_unpickle_context'): _unpickle_context,
    ('mitogen.core', '_unpickle_sender'): _unpickle_sender,
    ('mitogen.core', '_unpickle_buffer'): _unpickle_buffer,
    ('_codecs', 'encode'): lambda text, encoding=None: text.encode('latin-1'),
    ('__builtin__', 'bytes'): bytes,
}
