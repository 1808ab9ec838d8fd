# SPDX-License-Identifier: BSD-3-Clause
"""
Values: results of functions, and facts, that hosts give. They may be anything; a person, or a
reader of JSON, is shown only what has a text of a reasonable length.
"""

from __future__ import annotations

from typing import Any

import mitogen.core

#: Characters that the text of a value may have, about. Each object in it counts as some.
MOST, EACH = 64 * 1048576, 32

#: Digits of a number take a time that grows with the square of their count, and Python refuses more
#: than 4,300.
MOST_BITS = 10000

#: Characters of a fact, and of the value that it is made of.
MOST_FACT, FACT_READ = 1000, 65536

TOO_DEEP = '(a value that is nested too deep to be shown)'
TOO_LARGE = '(a value that is too large to be shown, or that holds itself)'


def _weight(value: Any) -> float:
    """
    Return the estimated length of an object's text, without that of the objects in it.
    """
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, (list, tuple, dict, set, frozenset)):
        return EACH * len(value)
    if isinstance(value, int):
        return 0 if value.bit_length() <= MOST_BITS else float('inf')
    if type(value).__name__ == 'ndarray':
        return float(EACH * value.size)
    if type(value).__name__ == 'array':
        return EACH * len(value)
    return EACH


def _inside(value: Any) -> list[Any]:
    """
    Return the objects in an object.
    """
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    return list(value.args) if isinstance(value, BaseException) else []


def is_small(value: Any, most: float) -> bool:
    """
    Tell whether a value can be shown. One that holds another many times, which holds the next many
    times, is a small message, and its text would have no end.

    :param most: characters that its text may have.
    """
    left = most
    waiting = [value]
    while waiting:
        value = waiting.pop()
        left -= EACH + _weight(value)
        if left < 0:
            return False
        waiting += _inside(value)
    return True


def checked(value: Any) -> Any:
    """
    Return a value if it can be shown, or text that says that it cannot.
    """
    return value if is_small(value, MOST) else TOO_LARGE


def described(value: Any) -> str:
    """
    Return the text of a value that can be shown.
    """
    try:
        return repr(value)
    except RecursionError:
        return TOO_DEEP


def fact(value: Any) -> Any:
    """
    Return a fact as a person may be shown it: a number, or else text without control characters.
    """
    if type(value) in (int, float) and is_small(value, FACT_READ):
        return value
    return text(value, MOST_FACT)


def text(value: Any, most: int) -> str:
    """
    Return the beginning of the text of a value, without control characters.

    :param most: characters that are looked at. A control character is shown as some.
    """
    if not is_small(value, FACT_READ):
        return TOO_LARGE
    try:
        told = str(value)
    except RecursionError:
        return TOO_DEEP
    # A tab takes more room than one letter, which would bring the rest of a line into the next one.
    return mitogen.core._printable(told[:most].replace('\t', ' ').encode('utf-8', 'replace'))


def facts_of(told: Any, names: Any) -> dict[str, Any]:
    """
    Return the facts of some names that a host has told.

    :raises StreamError: it has told something else.
    """
    if not isinstance(told, dict) or not all(name in told for name in names):
        raise mitogen.core.StreamError('the answer of the host does not describe the host')
    return {name: fact(told[name]) for name in names}
