"""Validation of settings. The errors name the parameter, the value and the allowed range."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, TypeVar

Choice = TypeVar("Choice", bound=StrEnum)


def number(parameter: str, value: Any, *, low: float = 0.0, above: bool = False, high: float = math.inf) -> float:
    """Return `value` as a float, if it is a finite number in range.

    Args:
        parameter: the name of the parameter, for the error.
        value: the value to check.
        low: the smallest allowed value.
        above: True if `low` itself is not allowed.
        high: the largest allowed value.

    Raises:
        TypeError: `value` is not an int or float.
        ValueError: `value` is not finite, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{parameter} must be a number {_range(low, above, high)}, not {value!r}{_hint(value)}")
    if not is_finite(value) or value < low or (above and value == low) or value > high:
        raise ValueError(f"{parameter} must be a number {_range(low, above, high)}, not {value!r}")
    return float(value)


def is_finite(value: float) -> bool:
    """Return whether a float, or an int of any size, is a finite float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def integer(parameter: str, value: Any, *, low: int, high: int | None = None) -> int:
    """Return `value`, if it is an int from `low` to `high`.

    Raises:
        TypeError: `value` is not an int.
        ValueError: `value` is out of range.
    """
    limits = f">= {low}" if high is None else f"from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{parameter} must be an integer {limits}, not {value!r}{_hint(value)}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{parameter} must be an integer {limits}, not {value!r}")
    return value


def _hint(value: object) -> str:
    """Return what to do if a function was passed, which means that a policy was used as `@Retry`."""
    return "; to decorate with the defaults, write parentheses, as in @Retry()" if callable(value) else ""


def flag(parameter: str, value: Any) -> bool:
    """Return `value`, if it is a bool.

    Raises:
        TypeError: `value` is not a bool.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{parameter} must be True or False, not {value!r}")
    return value


def text(parameter: str, value: Any) -> str:
    """Return `value`, if it is a non-empty string.

    Raises:
        TypeError: `value` is not a string.
        ValueError: `value` is empty.
    """
    if not isinstance(value, str):
        raise TypeError(f"{parameter} must be a string, not {value!r}")
    if not value:
        raise ValueError(f"{parameter} must not be empty")
    return value


def choice(parameter: str, value: Any, options: type[Choice]) -> Choice:
    """Return `value` as a member of `options`.

    Raises:
        TypeError: `value` is not a string.
        ValueError: `value` is not a member.
    """
    allowed = _quoted(options)
    if not isinstance(value, str):
        raise TypeError(f"{parameter} must be one of {allowed}, not {value!r}")
    try:
        return options(value)
    except ValueError:
        raise ValueError(f"{parameter} must be one of {allowed}, not {value!r}") from None


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)


def _range(low: float, above: bool, high: float) -> str:
    """Return the allowed range in words, such as "> 0 and <= 1"."""
    least = f"{'>' if above else '>='} {low:g}"
    return least if high == math.inf else f"{least} and <= {high:g}"
