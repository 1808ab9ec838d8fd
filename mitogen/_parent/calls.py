# SPDX-License-Identifier: BSD-3-Clause
"""
CallChain: functions that are called in another context. CallSpec: such a call, put into words.
"""

from __future__ import absolute_import  # house

import binascii  # house
import functools  # house
import logging  # house
import os  # house
import socket  # house
import struct  # house
import sys  # house
import types  # house

import mitogen  # house
import mitogen.core  # house
from mitogen.core import to_text  # house
from mitogen.parent import _handles_given, _Lending, _refuse_foreign, _refuse_unsendable, _routers, LOG, PY3  # house


#: Where functions keep what they closed over and methods what they are bound
#: to, on every supported Python.
closure_attr = '__closure__'
IM_SELF_ATTR = '__self__'

if PY3:
    _CLASS_TYPES = (type,)
else:
    _CLASS_TYPES = (type, types.ClassType)


if mitogen.core.CORE == 'native':
    # Not imported: the finder of modules would believe that every module which
    # needs this one needs the extension.
    _callee_names = sys.modules['_mitogen_core'].callee_names
else:
    def _callee_names(fn):
        """
        Return (module, None, name) of a plain function that its name leads to,
        if a quick look shows that.
        """
        return None


def _take_apart(fn, args, kwargs):
    """
    Return (function, args, kwargs) that mean the same without a partial.
    """
    while type(fn) is functools.partial:
        fn, args, kwargs = fn.func, fn.args + tuple(args), dict(fn.keywords or {}, **kwargs)
    return fn, args, kwargs


class CallSpec(object):
    """
    A call that is put into words only when somebody reads it.
    """
    def __init__(self, func, args, kwargs):
        self.func, self.args, self.kwargs = _take_apart(func, args, kwargs)

    def _name(self):
        func = self.func
        owner = getattr(func, IM_SELF_ATTR, None)
        parts = [getattr(func, '__module__', None)]
        if isinstance(owner, _CLASS_TYPES):
            parts.append(owner.__name__)
        parts.append(getattr(func, '__name__', None) or repr(func))
        return '.'.join([part for part in parts if part])

    def __repr__(self):
        words = [repr(arg) for arg in self.args]
        words.extend('%s=%r' % item for item in sorted(self.kwargs.items()))
        return '%s(%s)' % (self._name(), ', '.join(words))


def _at(module, path):
    """
    Return what the names of `path` lead to in a module, or None.
    """
    found = sys.modules.get(module)
    for name in path.split('.'):
        found = getattr(found, name, None)
    return found


def _is_at(fn, module, path):
    """
    Return whether the names of `path` lead to just this closure: another one may have its code.
    """
    return path is not None and '<' not in path and _at(module, path) is fn


def _leads_to(fn, module, path):
    """
    Return whether `fn` is what the names of `path` lead to in a module.
    """
    found = _at(module, path)
    if found is fn or found == fn:
        return True
    if getattr(fn, '__closure__', None) is not None:
        return False
    # After a reload the old function is as good as the new one.
    code = getattr(fn, '__code__', None)
    return code is not None and code == getattr(found, '__code__', None)


_EMPTY_KWARGS = mitogen.core.Kwargs({})


#: Bytes arguments longer than this are written raw, see `_make_raw_msg`. The
#: compiled core always writes them so.
_RAW_MIN = 65536 if mitogen.core.CORE == 'pure' else sys.maxsize


class CallChain(object):
    """
    A series of calls into one context.

    Calls of a chain that is not *pipelined* have nothing to do with each
    other. In a pipelined one, a call that fails makes all later ones fail with
    the same error, without running, until `reset`: so the caller need not wait
    for one before it sends the next.

    All methods may be used from any thread, but `call` not from the broker's.

    :param mitogen.core.Context context: where the functions run.
    :param bool pipelined: see above.
    """
    closures_msg = (
        'A closure cannot be called in another context: the variables that '
        'it holds have no name there.'
    )
    lambda_msg = (
        'A lambda cannot be called in another context: it has no name to look '
        'it up by there.'
    )
    method_msg = (
        'A method of an instance cannot be called in another context: the '
        'instance does not exist there. Class methods and functions of a '
        'module can be called.'
    )
    _local_msg = (
        '%s cannot be called in another context: it was defined inside of a '
        'function, and has no name to look it up by there.'
    )
    _sourceless_msg = (
        '%s cannot be called in another context: the main program was not read '
        'from a file, but typed at a prompt or in a notebook, or given by -c or on '
        'standard input, so there is no source that the context could be sent. Put the function '
        'into a module.'
    )
    _nameless_msg = (
        '%r cannot be called in another context: it has no name, or no module, '
        'to look it up by there.'
    )
    _other_msg = (
        'This %s.%s cannot be called in another context: its name leads to '
        'something else, or nowhere. A function that was wrapped, renamed or '
        'replaced can only be called as what has its name now.'
    )

    _last_usec = 0

    # Whether `call` may skip methods that a subclass could have replaced.
    _direct = False

    def __init__(self, context, pipelined=False):
        self.context = context
        self.chain_id = None
        if pipelined:
            self.chain_id = self.make_chain_id()
        cls = type(self)
        self._direct = (cls is CallChain or (
            cls.call_async == CallChain.call_async and
            cls.make_msg == CallChain.make_msg))

    def __repr__(self):
        return '%s(%s)' % (type(self).__name__, self.context)

    def __enter__(self):
        return self

    def __exit__(self, _1, _2, _3):
        self.reset()

    @classmethod
    def make_chain_id(cls):
        """
        Return text that no other chain has.
        """
        # Two chains of one thread may be made within one tick of the clock.
        usec = max(int(1e6 * mitogen.core.now()), CallChain._last_usec + 1)
        CallChain._last_usec = usec
        return u'%s-%s-%x-%x' % (
            to_text(socket.gethostname()),
            os.getpid(),
            mitogen.core.thread.get_ident(),
            usec,
        )

    def reset(self):
        """
        Make the target forget that a call of this chain failed.
        """
        if self.chain_id:
            # Sent outside of the chain, or it would not run either.
            self.context.send(self._make_msg(
                mitogen.core.Dispatcher.forget_chain, (self.chain_id,), {},
                None))

    def _find(self, fn):
        """
        Return the (module, class or None, function) names of `fn`. Such names
        may have several parts only where classes are nested.
        """
        if PY3 and type(fn) is types.FunctionType:
            # Most are functions of a module. A closure may be one, too.
            module, name = fn.__module__, fn.__name__
            if (getattr(sys.modules.get(module), name, None) is fn and
                    name != '<lambda>' and
                    (module != '__main__' or self._has_main_source())):
                return module, None, name
        # Plain functions have nothing to be bound to.
        name = path = getattr(fn, '__name__', None)
        module = getattr(fn, '__module__', None)
        if (getattr(fn, '__closure__', None) is not None and
                not _is_at(fn, module, getattr(fn, '__qualname__', name))):
            raise TypeError(self.closures_msg)
        if name == '<lambda>':
            raise TypeError(self.lambda_msg)
        if type(fn) is not types.FunctionType:
            owner = getattr(fn, '__self__', None)
            if isinstance(owner, _CLASS_TYPES):
                module = owner.__module__
                path = name and '%s.%s' % (
                    getattr(owner, '__qualname__', owner.__name__), name)
            elif not (owner is None or isinstance(owner, types.ModuleType)):
                # Built-in functions are bound to their module.
                raise TypeError(self.method_msg)
        if not (name and module):
            raise TypeError(self._nameless_msg % (fn,))
        if module == '__main__' and not self._has_main_source():
            raise TypeError(self._sourceless_msg % (name,))
        if module in sys.modules and not _leads_to(fn, module, path):
            path = self._find_within(fn, module, path)
        klass, _, name = path.rpartition('.')
        if PY3:
            return module, klass or None, name
        return to_text(module), to_text(klass) or None, to_text(name)

    def _has_main_source(self):
        """
        Return whether the main program has a source that a child could be sent.
        """
        path = getattr(sys.modules.get('__main__'), '__file__', None)
        if path and path[0] != '<' or not mitogen.is_master:
            return True
        responder = getattr(getattr(self.context, 'router', None), 'responder', None)
        if responder is None:
            return True
        # A program may name its main module itself.
        return responder._finder.get_module_source('__main__')[1] is not None

    def _find_within(self, fn, module, path):
        """
        Return the names of a function that is inside of a class, for `path`
        leads to another function, or nowhere. That one would run there.
        """
        qualname = getattr(fn, '__qualname__', path)
        if '<locals>' in qualname:
            raise TypeError(self._local_msg % (qualname,))
        if qualname == path or not _leads_to(fn, module, qualname):
            raise TypeError(self._other_msg % (module, qualname))
        return qualname

    def _make_msg(self, fn, args, kwargs, chain_id):
        """
        Return the message for a call.

        :param chain_id: text, or None for a call outside of the chain.
        :raises TypeError: `fn` cannot be found by name in another process.
        :raises CallError: an argument may not cross.
        """
        msg = self._pickle(fn, args, kwargs, chain_id)
        if msg._is_special:
            self._look_at_arguments(msg, fn, args, kwargs)
        return msg

    def _look_at_arguments(self, msg, fn, args, kwargs):
        values = sys.modules.get('mitogen._values')
        for module in values.take_written() if values is not None else ():
            self._teach(module)
        router = getattr(self.context, 'router', None)
        _refuse_unsendable(CallSpec(fn, args, kwargs), router, msg.data)

    def _teach(self, module):
        """
        Have the target import the module of a registered class, before the first value of it comes.
        """
        lessons = vars(self.context).setdefault('_lessons', {})
        if module not in lessons:
            # Not a chain's own call: that may be replaced, or fail with an earlier one.
            lessons[module] = self.context.send_async(
                self._make_msg(sys.modules['mitogen._values'].learn, (module,), {}, None))

    def _pickle(self, fn, args, kwargs, chain_id):
        """
        As `_make_msg`, but arguments that Python pickled were not checked yet.
        """
        handle = mitogen.core.CALL_FUNCTION
        names = _callee_names(fn)
        if names is None:
            fn, args, kwargs = _take_apart(fn, args, kwargs)
            names = self._find(fn)
            handle = getattr(fn, '_call_handle', handle)
        module, klass, name = names
        if len(_routers) > 1:
            _refuse_foreign(self.context, args, kwargs)
        if kwargs:
            kwargs = mitogen.core.Kwargs(kwargs)
        else:
            kwargs = _EMPTY_KWARGS
        if PY3:
            for arg in args:
                if type(arg) is bytes and len(arg) > _RAW_MIN:
                    return self._make_raw_msg(
                        (chain_id, module, klass, name), args, kwargs)
        return mitogen.core.Message.pickled(
            (chain_id, module, klass, name, args, kwargs),
            handle=handle,
        )

    def _make_raw_msg(self, names, args, kwargs):
        """
        Return the message for a call with long bytes arguments. Python 3 would
        pickle them as text, which is half as long again, and slow to write and
        to read. So a short random word is pickled in the place of each, and
        then the word is replaced by the raw bytes.

        :param tuple names: chain id, module, class and function.
        """
        mark = mitogen.core.to_text(binascii.hexlify(os.urandom(16)))
        raw = {}
        short = []
        for arg in args:
            if type(arg) is bytes and _RAW_MIN < len(arg) < 1 << 31:
                # An object that is given twice stays one object there.
                _, arg = raw.setdefault(id(arg), (arg, mark + str(len(raw))))
            short.append(arg)
        msg = mitogen.core.Message.pickled(
            names + (tuple(short), kwargs),
            handle=mitogen.core.CALL_FUNCTION,
        )
        parts = []
        data = msg.data
        for arg, word in raw.values():
            word = word.encode()
            before, found, data = data.partition(
                b'X' + struct.pack('<L', len(word)) + word)
            if not found:
                # A value could not be pickled, and this is the error.
                return msg
            parts += before, b'T' + struct.pack('<L', len(arg)), arg
        parts.append(data)
        msg.data = b''.join(parts)
        return msg

    def make_msg(self, fn, *args, **kwargs):
        """
        Return the message that makes the target call ``fn(*args, **kwargs)``.

        :raises TypeError: `fn` cannot be found by name in another process.
        """
        return self._make_msg(fn, args, kwargs, self.chain_id)

    def _log_call(self, verb, fn, args, kwargs):
        # Asked first: making the record would cost more than the rest of a
        # call.
        if LOG.isEnabledFor(logging.DEBUG):
            LOG.debug('%r: %s %r', self, verb, CallSpec(fn, args, kwargs))

    def call_no_reply(self, fn, *args, **kwargs):
        """
        Have a function called, without an answer. If it fails,
        the target logs that or, pipelined, keeps it for the next call.
        """
        self._log_call('call without reply', fn, args, kwargs)
        msg = self.make_msg(fn, *args, **kwargs)
        self.context.send(msg)

    def call_async(self, fn, *args, **kwargs):
        """
        Have a function called and return the `mitogen.core.Receiver` that one
        message with its result arrives at.
        """
        self._log_call('call', fn, args, kwargs)
        msg = self.make_msg(fn, *args, **kwargs)
        return self._send_special(msg, fn, args, kwargs)

    def _send_special(self, msg, fn, args, kwargs):
        """
        Send the message of a call that may have senders among its arguments.
        """
        fn, args, kwargs = _take_apart(fn, args, kwargs)
        handles = _handles_given(args, kwargs)
        if handles:
            spec = CallSpec(fn, args, kwargs)
            return _Lending(self.context.router, handles, spec).send_async(self.context, msg)
        return self.context.send_async(msg)

    def call(self, fn, *args, **kwargs):
        """
        Call a function in the target and return its result.

        :raises mitogen.core.CallError: the function raised.
        :raises mitogen.core.ChannelError: the target cannot be reached, or
            went away.
        :raises TypeError: see `make_msg`.
        """
        spans = sys.modules.get('mitogen._tasks.spans')
        if spans is not None and spans.is_carrying():
            return spans.call(self, fn, args, kwargs)
        return self._call(fn, args, kwargs)

    def _call(self, fn, args, kwargs):
        if self._direct and not LOG.isEnabledFor(logging.DEBUG):
            msg = self._pickle(fn, args, kwargs, self.chain_id)
            if not msg._is_special:
                return self.context.send_async(msg).get().unpickle()
            self._look_at_arguments(msg, fn, args, kwargs)
            return self._send_special(msg, fn, args, kwargs).get().unpickle()
        return self.call_async(fn, *args, **kwargs).get().unpickle()
