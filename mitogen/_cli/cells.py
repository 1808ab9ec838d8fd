# SPDX-License-Identifier: BSD-3-Clause
"""
The prompt of IPython for ``mitogen shell``. Cells are typed here, with prompt_toolkit, and run by
IPython on the host, which is sent it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from mitogen._cli.session import EXIT, NAME_MAX, NAMES_MAX, NAMES_TIMEOUT, Session

#: Bytes of the history that are kept, when a session begins.
HISTORY_MAX = 1 << 20

#: Cells of a session, as far as the numbers that a host may tell go.
NUMBER_MAX = 10 ** 9


def is_here() -> bool:
    """
    Tell whether this Python has IPython, and what its prompt is made of.
    """
    try:
        import IPython.core.inputtransformer2  # noqa: F401
        import prompt_toolkit  # noqa: F401
    except Exception:
        return False
    return True


def _needed() -> tuple[int, int]:
    """
    Return the least Python that the IPython of this machine needs; (0, 0) if it does not say.
    """
    import importlib.metadata
    import re
    try:
        told = importlib.metadata.metadata('ipython')['Requires-Python']
    except importlib.metadata.PackageNotFoundError:
        return 0, 0
    match = re.match(r'>=\s*(\d+)\.(\d+)', told or '')
    return (int(match[1]), int(match[2])) if match else (0, 0)


class Cells(Session):
    """
    A console of IPython on a host, as its base class.

    :raises CallError: IPython does not work over there.
    :ivar number: of the cell that is typed.
    """
    number = 1

    def __init__(self, host: Any, outputs: Any, raw: bool) -> None:
        self._colours = 'neutral' if raw and not os.environ.get('NO_COLOR') else 'nocolor'
        super().__init__(host, outputs)

    def _begin(self) -> Any:
        import mitogen._console.cells
        return self._host.call(mitogen._console.cells.begin, self._colours, _needed())

    def run(self, text: str) -> tuple[Any, int]:
        how, number = super().run(text)
        if how != EXIT:
            self.number = min(max(number, 1), NUMBER_MAX)
        return how, number

    def completions(self, text: str, position: int) -> list[tuple[int, str]]:
        """
        Return what may stand at a position of a cell: where it begins, and the text. None where
        that takes too long, or fails.
        """
        import mitogen._console.cells
        try:
            told = self._host.options(timeout=NAMES_TIMEOUT).call(mitogen._console.cells.completions, text, position)
        except mitogen.core.Error:
            return []
        # They get into the cell that is typed.
        return [it for it in told[:NAMES_MAX] if isinstance(it, tuple) and len(it) == 2
                and type(it[0]) is int and 0 <= it[0] <= position
                and isinstance(it[1], str) and len(it[1]) <= NAME_MAX and it[1].isprintable()
                ] if isinstance(told, list) else []


def talk(session: Cells, label: str, history: str) -> int:
    """
    Run what is typed, until the end of it. Return the exit status.

    :param label: the name of the host, which stands before the prompt.
    :param history: path of the file with what was typed earlier.
    """
    print(session.banner)
    prompt = _prompt(session, history)
    try:
        while True:
            print()
            mark = [('ansicyan', label + ' '), ('ansigreen', 'In ['), ('ansibrightgreen', str(session.number)), ('ansigreen', ']: ')]
            try:
                text = prompt.prompt(mark)
            except EOFError:
                return 0
            except KeyboardInterrupt:
                print('KeyboardInterrupt')
                continue
            how, status = session.run(text)
            if how == EXIT:
                return status & 0xff
    finally:
        session.close()


def _prompt(session: Cells, history: str) -> Any:
    """
    Return what reads cells.
    """
    from IPython.core.inputtransformer2 import TransformerManager
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.filters import Condition, has_selection
    from prompt_toolkit.key_binding import KeyBindings

    class Names(Completer):
        def get_completions(self, document: Any, event: Any) -> Iterator[Any]:
            for start, name in session.completions(document.text, document.cursor_position):
                yield Completion(name, start_position=start - document.cursor_position)

    keys = KeyBindings()
    transformer = TransformerManager()

    @Condition
    def is_at_indent() -> bool:
        return not get_app().current_buffer.document.current_line_before_cursor.strip()

    @keys.add('tab', filter=is_at_indent & ~has_selection)
    def indent(event: Any) -> None:
        event.current_buffer.insert_text('    ')

    @keys.add('enter', filter=~has_selection)
    def enter(event: Any) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            # The chosen name is in the text already.
            buffer.complete_state = None
            return
        document = buffer.document
        if document.text_after_cursor.strip():
            # In the midst of a cell the key makes a line.
            buffer.newline()
            return
        state, width = transformer.check_complete(document.text)
        if state == 'incomplete':
            buffer.insert_text('\n' + ' ' * (width or 0))
        else:
            buffer.validate_and_handle()

    return PromptSession(
        multiline=True, key_bindings=keys, lexer=_lexer(), completer=Names(), complete_in_thread=True,
        complete_while_typing=False, history=_history(history),
        prompt_continuation=lambda width, number, wrapped: '...: '.rjust(width))


def _lexer() -> Any:
    """
    Return what gives cells their colours, or None.
    """
    from prompt_toolkit.lexers import PygmentsLexer
    try:
        from ipython_pygments_lexers import IPythonLexer
    except ImportError:
        try:
            # Up to IPython 8.
            from IPython.lib.lexers import IPythonLexer
        except ImportError:
            return None
    return PygmentsLexer(IPythonLexer)


def _history(path: str) -> Any:
    """
    Return the history in a file, of which the end is kept if it is long.
    """
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    try:
        with open(path, 'a+b') as fp:
            size = fp.seek(0, os.SEEK_END)
            if size > HISTORY_MAX:
                fp.seek(-HISTORY_MAX // 2, os.SEEK_END)
                # An entry begins with its time.
                text = fp.read().partition(b'\n\n#')[2]
                fp.truncate(0)
                fp.write(b'\n#' + text)
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)
