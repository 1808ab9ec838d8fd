# SPDX-License-Identifier: BSD-3-Clause
"""
Router: the router of a master.
"""

from __future__ import absolute_import  # house

import os  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.parent  # house

from mitogen.master import Broker, IdAllocator, LOG, LogForwarder, ModuleResponder, ResourceResponder  # house


def _bytes_to_keep():
    """
    Return the number that the environment has for `Router.target_cache_bytes`.
    """
    text = os.environ.get('MITOGEN_TARGET_CACHE') or '0'
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        LOG.warning('MITOGEN_TARGET_CACHE must be a number of bytes, not %r', text)
    return max(0, number)


def _take_debug_signals():
    """
    Write down what is waited for when a signal comes, if the environment asks for it.
    """
    if os.environ.get('MITOGEN_DEBUG_SIGNAL'):
        import mitogen.debug
        mitogen.debug.enable_dump()


class _SetLater(object):
    """
    Stands in a class for an attribute that each instance gets at its start, and is None before.
    """
    def __get__(self, obj, klass=None):
        return self if obj is None else None


class Router(mitogen.parent.Router):
    """
    The router of a master.

    :param broker:
        Broker to use; a new :attr:`broker_class` if :data:`None`.
    :param int max_message_size:
        Largest payload, in bytes, that this router and all its descendants
        accept.

    :raises ValueError:
        MITOGEN_SHIP in the environment is no word that it may be.

    As a context manager, shuts the broker down and waits for it.
    """
    broker_class = Broker

    # Other than in a child, where they may be None, all of these are there.
    responder = id_allocator = log_forwarder = _SetLater()

    #: Whether children profile themselves. To be set before any is started.
    profiling = 'MITOGEN_PROFILING' in os.environ

    #: Whether a target that lacks this package is sent all of it, with the compiled core, if it
    #: runs the same version of Python. These are more bytes, and pay for children that are called
    #: often.
    ship_core = os.environ.get('MITOGEN_SHIP', '').strip().lower() == 'core'

    #: Bytes of distributions that each user of a target keeps for later runs, of those that travel
    #: whole. At 0 nothing stays there.
    target_cache_bytes = _bytes_to_keep()

    def __init__(self, broker=None, max_message_size=None):
        # Not only when a child starts.
        mitogen.parent._ship_choice()
        super(Router, self).__init__(
            self.broker_class() if broker is None else broker)
        if max_message_size:
            self.max_message_size = max_message_size
        self._install()
        _take_debug_signals()

    def _install(self):
        """
        Make everything that only the root of a tree has.
        """
        mitogen.parent._note_router(self)
        policy = mitogen.core.ImportPolicy()
        self._room = mitogen.parent._Room(self)
        self.responder = ModuleResponder(self, policy)
        for name, klass in (('id_allocator', IdAllocator),
                            ('log_forwarder', LogForwarder),
                            ('resource_responder', ResourceResponder),
                            ('route_monitor', mitogen.parent.RouteMonitor)):
            setattr(self, name, klass(self))
        self._add_detaching_handler()
        mitogen.core.listen(self.broker, 'exit', self._log_stats)

    def _log_stats(self):
        stats = self.get_stats()
        count = stats['good_load_module_count']
        LOG.debug(
            '%r: %d module requests in %.1f ms; sent %d modules of %.1f KiB, '
            '%.1f KiB on average, and %d refusals; minifying took %.1f ms',
            self,
            stats['get_module_count'],
            stats['get_module_secs'] * 1e3,
            count,
            stats['good_load_module_size'] / 1024.0,
            stats['good_load_module_size'] / 1024.0 / max(1, count),
            stats['bad_load_module_count'],
            stats['minify_secs'] * 1e3,
        )

    def get_stats(self):
        """
        Return what the module server has done so far. Any thread.

        :returns:
            Dictionary: `get_module_count` requests received and
            `get_module_secs` spent on them, `good_load_module_count` modules
            sent, `good_load_module_size` bytes of them,
            `bad_load_module_count` refusals, `minify_secs` spent minifying,
            `pushed_module_count` modules and refusals that nobody had asked
            for, and `unused_module_count` modules that children had not used
            when they ended, or asked for the next one.
        """
        return dict((counter, getattr(self.responder, counter))
                    for counter in self.responder.COUNTERS)

    def ship(self, *names, **kwargs):
        """
        Have distributions travel whole to the children that import them,
        whatever their size: as files, into a private folder of the child, which
        is gone with it. Any thread; does not block.

        Distributions that have native extensions, or read small data beside
        their modules, do so by themselves up to `limits.shipped_bytes`.

        :param str names:
            Names of distributions, as an index has them.
        :param wheels:
            Folder with files of wheels, for children of another kind than the
            master: of those of that name, the one that fits the child is sent.
            ``pip download --platform`` makes such a folder.
        :raises ValueError:
            There is no wheel of that name in the folder.
        """
        self.responder._freight.ship(names, kwargs.pop('wheels', None))
        if kwargs:
            raise TypeError('unknown arguments: %s' % (sorted(kwargs),))

    def _get_core_shipment(self, python, config):
        """
        Return the bytes that start a child with the compiled core, :data:`None` if it is not to
        have that.
        """
        if not self.ship_core:
            return None
        import mitogen._core_shipment
        return mitogen._core_shipment.preamble(python, config)

    def enable_debug(self):
        """
        Write a debug log file here, and in every child started from now on.
        """
        self.debug = True
        mitogen.core.enable_debug_logging()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        broker = self.broker
        broker.shutdown()
        broker.join()

    def disconnect_stream(self, stream):
        """
        Cut a stream off. Any thread; happens later.
        """
        self.broker.defer(mitogen.parent._disconnect, self.broker, stream)

    def disconnect_all(self):
        """
        Cut every stream off. Any thread; happens later.
        """
        for stream in self.get_streams():
            self.disconnect_stream(stream)
