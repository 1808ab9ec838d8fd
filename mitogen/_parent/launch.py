# SPDX-License-Identifier: BSD-3-Clause
"""
_Launch: the command that starts a child, and the text that it is sent.
"""

from __future__ import absolute_import  # house

import logging  # house
import sys  # house

import mitogen  # house
import mitogen.core  # house
from mitogen.core import to_text  # house
from mitogen.parent import _can_serve, _DECODER, _error_text, _get_code_partial, _get_first_stage_blob  # house
from mitogen.parent import _get_reduced_partial, _make_nonce, _native_str, _PLAIN_FIRST_STAGE, _prepare_late_code  # house
from mitogen.parent import _replace_phrases  # house
from mitogen.parent import _UNPACK, Argv, ConnectError, create_child, get_core_source_partial, LOG  # house
from mitogen.parent import PartialZlib, PY3, _ship_choice, _was_sent_all  # house


def _version_str():
    """
    Return the build that a child must have installed to use its own copy.
    """
    return mitogen.__build__


def _literal(obj):
    """
    Return the ASCII bytes of an expression that evaluates to `obj`, made of
    dicts, lists, tuples, text, numbers, booleans and None, on any Python.
    """
    if PY3:
        return ascii(obj).encode('ascii')
    return repr(obj)


def get_log_levels(loggers=('', 'mitogen', 'mitogen.io')):
    """
    Return the effective numeric levels of `loggers`, in that order. A child
    gets them at its start, so that it sends no record that nobody wants.
    """
    return [logging.getLogger(name).getEffectiveLevel() for name in loggers]


def _levels_for(router):
    """
    Return the levels for a child of a router. Lines that are printed there
    have the level INFO.
    """
    levels = get_log_levels(mitogen.core._LOGGERS)
    if getattr(router, '_shows_output', False):
        levels[3:5] = [min(level, logging.INFO) for level in levels[3:5]]
    return levels


def _refuse_frozen(argv):
    """
    Refuse to start the executable of a frozen application as an interpreter:
    it would run the application again, which would do the same.

    :param list argv: the command line of the interpreter.
    :raises ConnectError: it is that executable.
    """
    if getattr(sys, 'frozen', False) and argv == [sys.executable]:
        raise ConnectError(
            u'This application is frozen: %s is the application itself, and no '
            u'Python that could run a child. Say where one is: option '
            u'python_path.' % (to_text(sys.executable),))


class _Launch(object):
    """
    The command line that starts a child, and the text that the child is sent.
    The base of `Connection`.

    :param Options options: an instance of `options_class`.
    :param Router router: whose child this is to be.
    """
    #: Starts the process: called as ``create_child(args=[...], **args)``.
    create_child = staticmethod(create_child)
    create_child_args = {}

    name_prefix = u'local'

    context = None
    proc = None

    #: The child is on another machine, so that bytes cost time.
    _is_far = False

    #: The child was sent the core without what is seldom used, and has not
    #: asked for that yet.
    _lacks_core = False

    _preamble = None
    _config_line = None

    def __init__(self, options, router):
        self.options = options
        self._router = router
        #: The first stage prints the one beside its marker, and so shows that it
        #: is ours. The child, whose configuration has it, prints the other.
        self._stage_nonce = _make_nonce()
        self._ready_nonce = _make_nonce()

    def get_python_argv(self):
        """
        Return the beginning of the command line: the interpreter.
        """
        path = self.options.python_path
        if isinstance(path, (list, tuple)):
            return list(path)
        return [path]

    def get_boot_command(self):
        """
        Return the command line that starts the child on its own machine.
        """
        argv = self.get_python_argv()
        _refuse_frozen(argv)
        if self._runs_command_itself() and argv == [sys.executable]:
            stage = [_PLAIN_FIRST_STAGE, '']
        else:
            stage = [_DECODER, _get_first_stage_blob()]
        return argv + ['-c'] + stage + [
            _native_str(self.options.remote_name), _version_str(),
            self._stage_nonce,
        ]

    def _runs_command_itself(self):
        """
        Tell whether nothing comes between the command and the kernel: no
        shell, and no program that passes it on.
        """
        return False

    def get_econtext_config(self):
        """
        Return the configuration of the child, a dict of plain literals.
        """
        assert self.options.max_message_size is not None
        responder = self._router.responder
        if mitogen.is_master:
            policy = responder.policy
        else:
            policy = self._router.importer.policy
        config = {
            'parent_ids': [mitogen.context_id] + list(mitogen.parent_ids),
            'context_id': self.context.context_id,
            'debug': bool(self.options.debug),
            'profiling': bool(self.options.profiling),
            'unidirectional': bool(self.options.unidirectional),
            'log_levels': _levels_for(self._router),
            'max_message_size': int(self.options.max_message_size),
            'version': tuple(mitogen.__version__),
            'build': _version_str(),
            'import_blocks': sorted(policy.blocks),
            'import_overrides': sorted(policy.overrides),
            'remote_name': self.options.remote_name,
            # Not as the child says it: somebody may echo this.
            'marker': ' ' + self._ready_nonce,
        }
        stalled = self._router.limits.stalled_seconds
        if stalled != mitogen.core._Limits.stalled_seconds:
            # Infinity is no literal.
            config['stalled_seconds'] = min(stalled, 1e9)
        return config

    def _get_short_preamble(self):
        """
        Return the bytes for a target that has our version installed: the
        configuration as a Python expression. Made once.
        """
        if self._config_line is None:
            self._config_line = _literal(self.get_econtext_config())
        return self._config_line

    def get_preamble(self):
        """
        Return the bytes for a target without our package: a zlib stream of the
        core's source and, as its last line, the call that starts it. Made once.
        """
        if self._preamble is None:
            self._preamble = self._finish_preamble(get_core_source_partial())
        return self._preamble

    def _finish_preamble(self, partial):
        # The result is not kept: bytecode is large, and sent once.
        text = (b'\nExternalContext(' + self._get_short_preamble() +
                b').main()\n')
        if partial._divided:
            text = _replace_phrases(text)
        return partial.append(text)

    def _sees_our_files(self):
        """
        Tell whether a path leads the child to the same file as us. Only then
        is an interpreter of the same path the same.
        """
        return False

    def _get_preamble_for(self, python, func):
        """
        Call ``func(preamble)`` with the form of `get_preamble` that is best for
        the child: now, or on the broker thread when our parent has sent the
        source. Broker thread.

        :param int python: the child's :data:`sys.hexversion`.
        """
        ship = getattr(self._router, '_get_core_shipment', None)
        preamble = ship and ship(python, self._get_short_preamble())
        if preamble:
            return func(preamble)
        whole = self.options.debug or self.options.profiling
        if _can_serve(python, whole):
            if (python == sys.hexversion and self._sees_our_files() and
                    self.get_python_argv() == [sys.executable] and
                    _ship_choice() != 'source'):
                partial = _get_code_partial()
            else:
                partial = _get_reduced_partial(python, whole)
            self._lacks_core = partial._divided or not _was_sent_all()
            func(self._finish_preamble(partial))
            if partial._divided and not self._is_far and python >> 16 == sys.hexversion >> 16:
                _prepare_late_code()
            return None

        # Our own core is reduced for another kind of Python than this child's.
        def on_source():
            source = requester._cache.get(key)
            if not self._pending:
                return
            if source is None:
                self._fail_connection(mitogen.core.StreamError(
                    u'The source that this child needs cannot be had.'))
            else:
                func(self._finish_preamble(PartialZlib(_UNPACK + source)))

        key = u'mitogen', u'core.py'
        requester = self._router.importer._resource_requester
        requester._request_resource(key[0], key[1], on_source)

    def start_child(self):
        """
        Start the process and return it. Broker thread.

        :raises mitogen.core.StreamError: it cannot be run.
        """
        # Options that came through another context are text on Python 2, too,
        # which would go through ASCII on its way to the kernel.
        args = [_native_str(word) for word in self.get_boot_command()]
        LOG.debug('command line for %r: %s', self.context, Argv(args))
        try:
            return self.create_child(args=args, **self.create_child_args)
        except OSError as e:
            raise ConnectError(
                u'Child start failed: %s. Command was: %s'
                % (_error_text(e), to_text(str(Argv(args)))))

    def _get_name(self):
        """
        Return the name of the context if none was given.
        """
        return u'%s.%s' % (self.name_prefix, self.proc.pid)
