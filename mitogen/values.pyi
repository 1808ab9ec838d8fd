from typing import Type, TypeVar

_T = TypeVar('_T')

def register(cls: Type[_T]) -> Type[_T]: ...
