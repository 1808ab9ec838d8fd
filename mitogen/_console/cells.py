# SPDX-License-Identifier: BSD-3-Clause
"""
A console of IPython: cells that a person types elsewhere, as they are run here, with magics, ``?``
and ``!``. This module, and IPython where there is none, are fetched by a host that ``mitogen
shell`` is for.

Nothing is kept on this machine: the history is where the person types, and neither the files of
IPython's profile nor its configuration are looked at.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import itertools
import shutil
import sys
import tempfile

import mitogen._console
import mitogen.core
from mitogen.core import takes_econtext


def _show_page(_shell, data, start=0, screen_lines=0):
    """
    Print what IPython would show in a pager: there is no terminal here.
    """
    text = data['text/plain'] if isinstance(data, dict) else data
    sys.stdout.write('\n'.join(text.splitlines()[start:]) + '\n')


def _make_shell(colours):
    """
    Return a shell of IPython.

    :param str colours: name of a theme of IPython.
    """
    from IPython.core.autocall import ExitAutocall
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        #: The exit status that was asked for, or None.
        status = None

        # It has no terminal, and cannot give one to a process.
        system = InteractiveShell.system_raw

        def ask_exit(self, status=0):
            self.status = status

    class Exit(ExitAutocall):
        def __call__(self, status=None):
            self._ip.ask_exit(status)

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = colours
    # It reads files of its own, which the parent would have to send.
    config.Completer.use_jedi = False
    folder = tempfile.mkdtemp()
    try:
        # A shell wants a folder for its profile, and uses it for no more than the table below.
        shell = Shell.instance(config=config, ipython_dir=folder)
    finally:
        shutil.rmtree(folder, True)
    shell.db = {}
    shell.user_ns['exit'] = shell.user_ns['quit'] = Exit(shell)
    shell.set_hook('show_in_pager', _show_page, 0)
    return shell


class _Cells(mitogen._console._Console):
    """
    The console of this process, as its base class.
    """
    def __init__(self, econtext, colours):
        self._shell = _make_shell(colours)
        super(_Cells, self).__init__(econtext)

    def _run(self, text):
        """
        Run a cell. The number of the next one takes the place of an exit status.
        """
        self._shell.run_cell(text, store_history=True)
        self.running = False
        status = self._shell.status
        if status is None:
            return mitogen._console.DONE, self._shell.execution_count
        return mitogen._console.EXIT, mitogen._console.exit_status(status)

    def completions(self, text, position):
        from IPython.core.completer import provisionalcompleter, rectify_completions
        with provisionalcompleter():
            found = rectify_completions(text, self._shell.Completer.completions(text, position))
            return [(it.start, it.text) for it in itertools.islice(found, mitogen._console.NAMES_MAX)]


@takes_econtext
def begin(colours, needed, econtext):
    """
    Make the console, and return the handle that interrupts, and a line about this Python and
    IPython. Main thread.

    :param str colours: name of a theme of IPython.
    :param needed: the least version of Python that the parent's IPython needs, or (0, 0).
    :raises Error: IPython does not work here.
    """
    try:
        console = _Cells(econtext, colours)
        import IPython
        version = IPython.__version__
    except Exception:
        if sys.version_info[:2] < tuple(needed):
            raise mitogen.core.Error('it needs Python %d.%d, and this is %d.%d' % (tuple(needed) + sys.version_info[:2]))
        raise mitogen.core.Error('%s: %s' % (sys.exc_info()[0].__name__, sys.exc_info()[1]))
    return mitogen._console.use(console, ', IPython ' + version)


def completions(text, position):
    """
    Return what may stand at a position of a cell: (position where it begins, text).
    """
    return mitogen._console._console.completions(text, position)
