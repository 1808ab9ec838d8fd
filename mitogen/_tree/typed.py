# SPDX-License-Identifier: BSD-3-Clause
"""
Typed functions: those of a main program that has no file. They travel as their source, with all
that they use.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import mitogen._typed
import mitogen.core
import mitogen.parent
from mitogen._tree.compiled import core as _native

MAIN = '__main__'

_NO_KWARGS = mitogen.core.Kwargs({})


class _Text:
    """
    The statements that make a function, and all that it uses.
    """
    def __init__(self) -> None:
        self._names = vars(sys.modules[MAIN])
        self._seen: set[str] = set()
        self._imports: list[str] = []
        self._parts: list[str] = []
        #: Name -> value of what is no function, class or module.
        self.values: dict[str, Any] = {}

    def add(self, name: str) -> None:
        """
        Add what a name of the main program stands for.
        """
        if name in self._seen or name not in self._names:
            return
        self._seen.add(name)
        value = self._names[name]
        module = getattr(value, '__module__', None)
        path = getattr(value, '__qualname__', '')
        if isinstance(value, types.ModuleType):
            self._imports.append('import %s as %s' % (value.__name__, name) if value.__name__ != name
                                 else 'import %s' % (name,))
        elif module == MAIN and isinstance(value, (types.FunctionType, type)):
            self._add_source(value)
            if name != value.__name__:
                self._parts.append('%s = %s\n' % (name, value.__name__))
        elif module in sys.modules and path and getattr(sys.modules[module], path, None) is value:
            self._imports.append('from %s import %s as %s' % (module, path, name))
        else:
            self.values[name] = value

    def _add_source(self, value: Any) -> None:
        import ast
        source = _source_of(value)
        used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        for name in sorted(used):
            if name != value.__name__:
                self.add(name)
        self._parts.append(source)

    def __str__(self) -> str:
        return '\n'.join(self._imports + self._parts) + '\n'


def _source_of(value: Any) -> str:
    """
    Return the statement that has made a function or a class.

    :raises OSError: nobody has kept it.
    """
    import ast
    import inspect
    import textwrap
    try:
        return textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):
        text = _command()
    for node in reversed(ast.parse(text).body):
        if getattr(node, 'name', None) == value.__name__:
            first = min([node.lineno] + [one.lineno for one in getattr(node, 'decorator_list', ())])
            return '\n'.join(text.splitlines()[first - 1:node.end_lineno]) + '\n'
    raise OSError('no source')


def _command() -> str:
    """
    Return the text that was given by ``-c``.

    :raises OSError: there is none.
    """
    words = getattr(sys, 'orig_argv', [])[1:]
    if '-c' not in words[:-1]:
        raise OSError('no source')
    return words[words.index('-c') + 1]


def travelling(host: Any, fn: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
    """
    Return the function, args and kwargs to send for those of a call: the same, but for a function
    of a main program that has no file.
    """
    if getattr(fn, '__module__', None) != MAIN and not hasattr(fn, 'func'):
        return fn, args, kwargs
    plain, all_args, all_kwargs = mitogen.parent._take_apart(fn, args, kwargs)
    if not isinstance(plain, types.FunctionType) or plain.__module__ != MAIN or '<' in plain.__qualname__:
        return fn, args, kwargs
    if host.default_call_chain._has_main_source():
        return fn, args, kwargs
    text = _Text()
    try:
        text.add(plain.__name__)
        if getattr(sys.modules[MAIN], plain.__name__, None) is not plain:
            raise OSError('another object has its name')
    except (OSError, SyntaxError):
        # The call will say that it has no source.
        return fn, args, kwargs
    return mitogen._typed.call, (str(text), text.values, plain.__name__, all_args, mitogen.core.Kwargs(all_kwargs)), {}


def message(host: Any, fn: Any, args: Any, kwargs: Any) -> Any:
    """
    Return the message of a call.

    :raises TypeError: the function has no name that leads to it.
    :raises ValueRefused: an argument cannot be sent.
    """
    chain = host.default_call_chain
    if _native is not None and chain._direct:
        if args or kwargs:
            mitogen.parent._refuse_foreign(host, args, kwargs)
        msg = _native.call_message(fn, args, mitogen.core.Kwargs(kwargs) if kwargs else _NO_KWARGS)
        if msg is not None and not msg._is_special:
            return msg
    fn, args, kwargs = travelling(host, fn, args, kwargs)
    return chain._make_msg(fn, args, kwargs, None)
