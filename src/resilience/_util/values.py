"""What small dataclasses share: equality by fields, and the default of a parameter for which None is a value."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Value:
    """Base class of frozen dataclasses that are equal when they are of one class and their fields are equal.

    They are declared with `eq=False`: generating these two methods for each class took half of the time that
    the class cost at import.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return _values(self) == _values(other)

    def __hash__(self) -> int:
        return hash(_values(self))


def _values(value: DataclassInstance | Any) -> tuple[Any, ...]:
    return tuple(getattr(value, field.name) for field in fields(value))


class Missing(Enum):
    """The type of MISSING."""

    MISSING = "not given"

    def __repr__(self) -> str:
        return self.value


MISSING: Final = Missing.MISSING
"""The default of a parameter that was not given, where None is a value."""


def plain(value: Any) -> Any:
    """Return a value as plain data; objects of other types as `shown` has them."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return _plain_items(value)
    return shown(value)


def shown(value: Any) -> str:
    """Return a setting for people: its `repr`, and of what is bound to arguments or to an object only the function."""
    if isinstance(value, partial):
        function: Any = value.func
        return f"partial({shown(function)})"
    if isinstance(value, MethodType):
        return f"<method {value.__qualname__}>"
    return repr(value)


def _plain_items(mapping: Any) -> dict[str, Any]:
    return {str(key): plain(one) for key, one in mapping.items()}
