# SPDX-License-Identifier: BSD-3-Clause
"""
Loggers that do not need `logging`, and the modules that are imported late.
"""

from __future__ import absolute_import  # house

import sys  # house

from mitogen.core import _module, _REDUCED, _seldom, _SELDOM, to_text  # house


#: Those whose levels a child is told.
_LOGGERS = ('', 'mitogen', 'mitogen.io', 'stdout', 'stderr', 'mitogen.importer')


class LazyLogger(object):
    """
    Stand for ``logging.getLogger(name)`` without importing `logging`, which
    is a third of the start of a child.

    While `sink` is set (a child in which nobody imported `logging` yet),
    records go straight to that :class:`LogHandler`. Otherwise every attribute
    is the real logger's. Any thread.
    """
    sink = None
    #: Logger name -> level, while `sink` is set.
    levels = {}
    METHODS = {
        'debug': 10, 'info': 20, 'error': 40, 'exception': 40,
    }

    def __init__(self, name):
        self.name = name

    if not _REDUCED:
        @property
        def __class__(self):
            # unittest's assertLogs() asks for `isinstance`.
            return type(_module('logging').getLogger(self.name))

    def __getattr__(self, attr):
        if LazyLogger.sink is not None:
            if attr == 'log':
                return self._log
            level = self.METHODS.get(attr)
            if level:
                def emit(msg, *args, **kwargs):
                    kwargs.setdefault('exc_info', attr == 'exception')
                    self._log(level, msg, *args, **kwargs)
                return emit
        return self._real(attr)

    @_seldom
    def _real(self, attr):
        """Return an attribute of the real logger."""
        if (self.name, attr) in self._deleted:
            raise AttributeError(attr)
        logging = _module('logging')
        # A thread may have the lock of `logging` and wait for the broker thread meanwhile, to
        # import a handler that a configuration names. The broker thread must not wait for the lock.
        logger = logging.root.manager.loggerDict.get(self.name)
        if not isinstance(logger, logging.Logger):
            logger = logging.getLogger(self.name)
        func = getattr(logger, attr)
        if attr not in ('debug', 'info', 'warning', 'warn', 'error',
                        'exception', 'critical', 'fatal'):
            return func
        # None has the name `EXCEPTION`.
        level = getattr(logging, attr.upper(), 0)

        def guarded(msg, *args, **kwargs):
            if level and not logging.root.manager.disable < level >= logger.getEffectiveLevel():
                return
            if sys.version_info > (3, 8):
                kwargs.setdefault('stacklevel', 2)
            try:
                if not level or level in getattr(logger, '_cache', (level,)):
                    func(msg, *args, **kwargs)
                else:
                    # The method would ask, with the lock, whether the level is on.
                    logger._log(level, msg, args, **kwargs)
            except Exception:
                # A handler raised. The broker thread logs, too, and must not end.
                _module('traceback').print_exc()
        return guarded

    def isEnabledFor(self, level):
        """Return whether a record of the numeric `level` would go anywhere."""
        if LazyLogger.sink is None:
            return self.__getattr__('isEnabledFor')(level)
        # Such records never leave the process, and have no other destination.
        return (self.name != 'mitogen.io' and
                level >= self.levels.get(self.name, self.levels['']))

    def _log(self, level, msg, *args, **kwargs):
        sink = LazyLogger.sink
        if sink is None:
            # `logging` was imported since.
            return self.__getattr__('log')(level, msg, *args, **kwargs)
        if not self.isEnabledFor(level):
            return
        try:
            msg = to_text(msg)
            if args:
                msg %= args
            if kwargs.get('exc_info'):
                msg += '\n' + _module('traceback').format_exc().rstrip('\n')
        except Exception:
            msg = 'bad log call: %r %r' % (msg, args)
        sink.send(self.name, level, msg)


LOG = LazyLogger('mitogen')
if _SELDOM:
    LOGGERS = _LOGGERS[:3]
    IOLOG = LazyLogger('mitogen.io')

    #: Attributes that the real logger has. Anything else, a method for
    #: example, is replaced here.
    _OF_LOGGER = ('propagate', 'disabled', 'level', 'handlers', 'filters',
                  'parent')

    def _set_of_logger(self, attr, value):
        if attr in _OF_LOGGER:
            setattr(_module('logging').getLogger(self.name), attr, value)
            self._deleted.discard((self.name, attr))
        else:
            object.__setattr__(self, attr, value)

    def _delete_of_logger(self, attr):
        # At its end a patch of `mock` deletes an attribute of an object that
        # stands for another one, and sets it if that made it go. Meanwhile a
        # real logger without it could not log.
        if attr in _OF_LOGGER:
            self._deleted.add((self.name, attr))
        else:
            object.__delattr__(self, attr)

    LazyLogger._deleted = set()
    LazyLogger.__setattr__ = _set_of_logger
    LazyLogger.__delattr__ = _delete_of_logger
_importer_log = LazyLogger('mitogen.importer')
