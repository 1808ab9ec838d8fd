# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `fork`: the child is a copy of this process, with everything
that is loaded here already loaded there.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import errno
import gc
import logging
import os
import random
import sys
import threading
import warnings

import mitogen.core
import mitogen.parent


LOG = logging.getLogger(__name__)

FORK_SUPPORTED = hasattr(os, 'fork')

#: Exit status of a child whose context ended with an exception.
CRASH_STATUS = 72

#: The filter that :func:`_fork` has put first.
_fork_filter = None


class Error(mitogen.core.StreamError):
    """
    Forking is not possible here.
    """
    pass


def reset_logging_framework():
    """
    Give logging and its handlers new locks: another thread, which does not
    exist any more, may have held the old ones.
    """
    logging._lock = threading.RLock()
    for ref in getattr(logging, '_handlerList', []):
        handler = ref()
        if handler is not None:
            handler.createLock()


def fixup_prngs():
    """
    Make our random numbers differ from those of the process we copy.
    """
    seed = os.urandom(32)
    random.seed(seed)
    ssl = sys.modules.get('ssl')
    if ssl is not None:
        ssl.RAND_add(seed, 32.0)


def on_fork():
    """
    To be called in the child after :func:`os.fork`, by any program that forks
    with Mitogen loaded, on a Python that has no :func:`os.register_at_fork`;
    newer ones do this by themselves, and a second time is no harm. Closes
    every stream of this library, tells threads that wait for the parent's
    messages, and replaces locks that other threads may have held. Only thread.
    """
    if not hasattr(os, 'register_at_fork'):
        reset_logging_framework()
        fixup_prngs()
    mitogen.core._on_fork()


def _convert_exit_status(status):
    """
    Convert a status of :func:`os.waitpid` to an exit status, or to minus the
    number of the signal that ended or stopped the process.
    """
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    if os.WIFSIGNALED(status):
        return -os.WTERMSIG(status)
    return -os.WSTOPSIG(status)


def _fork():
    """
    Call :func:`os.fork` without being warned that this process has threads: it
    always has, and they are taken care of. Where warnings are errors, Python
    3.15 would raise one when the child is there already, and its number lost.
    """
    global _fork_filter
    if sys.version_info >= (3, 12) and warnings.filters[:1] != [_fork_filter]:
        # For our own forks only, and not taken back: another thread may
        # change the filters meanwhile.
        warnings.filterwarnings(
            'ignore', 'This process .* is multi-threaded', DeprecationWarning,
            r'mitogen\.fork$')
        _fork_filter = warnings.filters[0]
    return os.fork()


def handle_child_crash():
    """
    Report a failure to start on the terminal, the only place left, and end
    the process.
    """
    import traceback
    text = '\n\nFORKED CHILD %d CRASHED\n%s\n\n' % (
        os.getpid(), traceback.format_exc())
    try:
        fd = os.open('/dev/tty', os.O_WRONLY | os.O_NOCTTY)
        os.write(fd, text.encode('utf-8', 'replace'))
    except OSError:
        pass
    finally:
        os._exit(1)


class Process(mitogen.parent.Process):
    """
    A process made by :func:`os.fork`.
    """
    _status = None

    def poll(self):
        if self._status is not None:
            return self._status
        try:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
        except OSError:
            if sys.exc_info()[1].errno != errno.ECHILD:
                raise
            # This happens if the program ignores SIGCHLD. The number may
            # belong to another process by now, and the status of this one is
            # lost.
            LOG.warning('%r: another part of the program has waited for it', self)
            ended, status = self.pid, 0
        if ended:
            self._status = _convert_exit_status(status)
        return self._status


class Options(mitogen.parent.Options):
    """
    Options of the method.

    :param on_fork:
        Function called first of all in the child.
    :param on_start:
        Function called as `on_start(econtext)` on the main thread of the
        child, before it takes calls.
    """
    #: There is no interpreter to find, and no command line to name it on.
    python_path = remote_name = None

    on_fork = on_start = None
    debug = profiling = unidirectional = False

    _names = frozenset(['name', 'on_fork', 'on_start',
                        'debug', 'profiling', 'unidirectional'])

    def __init__(self, old_router, max_message_size, **options):
        if not FORK_SUPPORTED:
            raise Error('This platform cannot fork.')
        unknown = set(options) - self._names
        if unknown:
            raise TypeError('no such option of the method fork: %s'
                            % ', '.join(sorted(unknown)))
        vars(self).update(options, old_router=old_router,
                          max_message_size=max_message_size)
        self.connect_deadline = self.connect_timeout + mitogen.core.now()

        # A child passes on what it knows of modules. A master's responder
        # has no such thing.
        responder = getattr(old_router, 'responder', None)
        self.importer = getattr(responder, 'importer', None)


class Connection(mitogen.parent.Connection):
    """
    Start a child by forking. Happens on the broker thread, so the child is a
    copy of that thread only.
    """
    name_prefix = u'fork'
    options_class = Options

    def start_child(self):
        # Made here, where it takes less: each page that a child touches first
        # has to be copied.
        config = self.get_econtext_config()
        if mitogen.core.CORE == 'pure':
            # The unpickler of messages, too, is made once, and not in each child.
            mitogen.parent._get_skip()
        left, right = mitogen.parent.create_socketpair(mitogen.parent._BUFFER_SIZE)
        try:
            pid = _fork()
        except BaseException:
            # If there is a child all the same, it ends at the end of its
            # input.
            left.close()
            right.close()
            raise
        if not pid:
            self._run_child(config, left, right)
        right.close()
        return Process(pid, left, left)

    def _run_child(self, config, parents, own):
        try:
            parents.close()
            self._child_main(config, own)
        except BaseException:
            handle_child_crash()

    def get_econtext_config(self):
        options = self.options
        config = super(Connection, self).get_econtext_config()
        # It has everything already, and has said so.
        config.update(setup_package=False, core_src_fd=None, send_ec2=False,
                      importer=options.importer)
        if options.on_start:
            config.update(on_start=options.on_start)
        return config

    def _child_main(self, config, sock):
        """
        Become the child. Does not return.
        """
        on_fork()
        # Ctrl-C at the terminal is for the parent.
        os.setsid()
        if self.options.on_fork:
            self.options.on_fork()
        # A garbage collection would write to each page with an object.
        collects = gc.isenabled()
        gc.disable()
        mitogen.core.set_blocking(sock.fileno(), True)
        sock.sendall(mitogen.core.b('MITO002%(marker)s\n' % config))

        # Above the standard files, so that none of these calls overwrites it.
        fd = os.dup(sock.fileno())
        spare = []
        while fd <= 2:
            spare.append(fd)
            fd = os.dup(fd)
        sock.close()
        null = os.open('/dev/null', os.O_RDWR)
        os.dup2(fd, 0)
        os.dup2(fd, 1)
        os.dup2(null, 2)
        for extra in fd, null:
            if extra > 2:
                os.close(extra)

        status = 0
        econtext = mitogen.core.ExternalContext(config)
        econtext._collects = collects
        try:
            econtext.main()
        except BaseException:
            status = CRASH_STATUS
        finally:
            # Functions that the parent registered for its exit must not run
            # here.
            os._exit(status)
