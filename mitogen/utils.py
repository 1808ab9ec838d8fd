# SPDX-License-Identifier: BSD-3-Clause
"""
Conveniences for programs: logging, one-router programs, plain values.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import datetime
import logging
import os
import sys

import mitogen
import mitogen.core


PY3 = sys.version_info >= (3,)

#: Types whose instances :func:`cast` leaves alone.
PASSTHROUGH = (int, float, bool, type(None)) + tuple(
    getattr(mitogen.core, name)
    for name in ('Context', 'CallError', 'Blob', 'Secret')
)


def setup_gil():
    """
    Let a thread keep the interpreter for long before another may ask for it.
    Good for programs whose threads mostly wait for each other.
    """
    if PY3:
        func, interval = getattr(sys, 'setswitchinterval', None), 10
    else:
        func, interval = getattr(sys, 'setcheckinterval', None), 100000
    if func:
        func(interval)


def disable_site_packages():
    """
    Remove directories of third party packages from :data:`sys.path`.
    """
    sys.path[:] = [
        entry for entry in sys.path
        if 'site-packages' not in entry and 'Extras' not in entry
    ]


class _Formatter(logging.Formatter):
    """
    Log formatter that knows microseconds. It escapes control characters, and
    indents the further lines of a record, so that none looks like a record.
    """
    def format(self, record):
        return mitogen.core._printable_record(
            logging.Formatter.format(self, record))

    def formatTime(self, record, datefmt=None):
        when = datetime.datetime.fromtimestamp(record.created)
        return when.strftime(datefmt)


def log_get_formatter():
    """
    Return the :class:`logging.Formatter` that :func:`log_to_file` uses.
    """
    return _Formatter('%(asctime)s %(levelname).1s %(name)s: %(message)s',
                      '%H:%M:%S.%f')


def _levelname_to_levels(name, default=logging.INFO):
    """
    Return the levels for :data:`mitogen.core.LOGGERS` that go by `name`. Only
    the name `IO` asks for a record of each read and write.
    """
    if name == 'IO':
        return (logging.DEBUG,) * 3
    level = getattr(logging, name, default)
    if not isinstance(level, int):
        level = default
    return (level,) * 2 + (max(logging.INFO, level),)


def log_levels_configure(default='INFO'):
    """
    Set the levels of the root logger and Mitogen's from the environment
    variable ``MITOGEN_LOG_LEVEL``, or from `default`.

    :param str default:
        Name of a level, or ``IO``.
    """
    name = os.environ.get('MITOGEN_LOG_LEVEL', default).upper()
    for logger, level in zip(mitogen.core.LOGGERS,
                             _levelname_to_levels(name)):
        logging.getLogger(logger).setLevel(level)
    given = os.environ.get('MITOGEN_LOG_LEVEL')
    if given and name != 'IO' and not isinstance(getattr(logging, name, None), int):
        logging.getLogger('mitogen').warning(
            'MITOGEN_LOG_LEVEL is %r, and must be IO, DEBUG, INFO, WARNING, ERROR '
            'or CRITICAL; INFO is used', given)


def log_to_file(path=None, level='INFO'):
    """
    Log to a file, instead of where an earlier call said.

    :param str path:
        File to write anew, or :data:`None` for standard error.
    :param str level:
        Name of a level, unless the environment has ``MITOGEN_LOG_LEVEL``.
    :raises IOError:
        The file cannot be opened.
    """
    log_levels_configure(level)

    fp = sys.stderr
    if path:
        # Line buffered, so that others can watch it.
        fp = open(path, 'w', 1)
        fd = fp.fileno()
        mitogen.core.set_cloexec(fd)

    handler = logging.StreamHandler(fp)
    handler.is_mitogen = True
    handler.setFormatter(log_get_formatter())

    root = logging.getLogger()
    for old in root.handlers[:]:
        if hasattr(old, 'is_mitogen'):
            root.removeHandler(old)
            old.close()
    # First in the list, since other handlers may replace the message.
    root.handlers.insert(0, handler)


def run_with_router(func, *args, **kwargs):
    """
    Return `func(router, *args, **kwargs)`, with a new
    :class:`mitogen.master.Router` whose broker is shut down and joined
    afterwards, also after an exception.
    """
    import mitogen.master
    with mitogen.master.Router() as router:
        return func(router, *args, **kwargs)


def with_router(func):
    """
    Decorator: have the function called by :func:`run_with_router`. It is then
    called without its first argument, the router.
    """
    def wrapper(*args, **kwargs):
        return run_with_router(func, *args, **kwargs)
    wrapper.__name__ = func.__name__
    wrapper.__doc__ = func.__doc__
    return wrapper


def _to_exactly(klass, obj):
    """
    Return `obj`, of a subtype of `klass`, as `klass` itself.
    """
    plain = klass(obj)
    if type(plain) is klass:
        return plain
    raise TypeError('%r does not become %s' % (type(obj), klass.__name__))


def cast(obj):
    """
    Return `obj` made of types that can be sent: subtypes of dictionaries,
    lists, tuples, text and bytes become what they extend, at any depth, and
    tuples become lists. :data:`PASSTHROUGH` is returned as it is.

    :raises TypeError:
        There is something of another type, or text or bytes of a subtype that
        cannot be converted.
    """
    if isinstance(obj, dict):
        return dict((cast(key), cast(value))
                    for key, value in mitogen.core.iteritems(obj))
    if isinstance(obj, (list, tuple)):
        return [cast(value) for value in obj]
    if isinstance(obj, PASSTHROUGH + mitogen.core.integer_types):
        return obj
    for klass in mitogen.core.UnicodeType, mitogen.core.BytesType:
        if isinstance(obj, klass):
            return _to_exactly(klass, obj)
    raise TypeError('Cannot send an object of type %r' % (type(obj),))
