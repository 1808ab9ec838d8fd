# SPDX-License-Identifier: BSD-3-Clause
"""
Record: the base of the few classes that every program imports and that would be dataclasses. To
import :mod:`dataclasses`, and to have it write methods, takes as long as to import a router.
"""

from __future__ import annotations

from typing import Any


def _names(cls: type) -> dict[str, Any]:
    """
    Return name -> annotation of the attributes of a record.
    """
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__[:-1]):
        found.update(getattr(base, '__annotations__', {}))
    return found


class _Fields:
    """
    The fields of a record, for functions of :mod:`dataclasses`: a program may use them.
    """
    def __get__(self, instance: object, owner: type) -> Any:
        import dataclasses
        like = type(owner.__name__, (), {'__annotations__': _names(owner), '__module__': owner.__module__})
        return {field.name: field for field in dataclasses.fields(dataclasses.dataclass(like))}


class Record:
    """
    An object whose attributes are the arguments of its constructor. A class that derives from this
    one has an annotation for each of them, in their order.
    """
    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__match_args__ = tuple(_names(cls))  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return '%s(%s)' % (type(self).__qualname__, ', '.join('%s=%r' % item for item in vars(self).items()))

    def __eq__(self, other: object) -> Any:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


Record.__dataclass_fields__ = _Fields()  # type: ignore[attr-defined]
