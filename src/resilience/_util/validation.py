"""Refuse bad settings where they are given: the parameter, the value and the allowed range, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, TypeVar

Choice = TypeVar("Choice", bound=StrEnum)


def number(parameter: str, value: Any, *, low: float = 0.0, above: bool = False, high: float = math.inf) -> float:
    """Return `value` as a float, if it is a finite number in range.

    Args:
        parameter: the name that the user knows it by.
        value: what the user gave.
        low: the least allowed value.
        above: True when `low` itself is not allowed.
        high: the greatest allowed value.

    Raises:
        TypeError: `value` is no number.
        ValueError: it is not finite, or outside the range.
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
    """Return `value`, if it is an int from `low` to `high`; the errors are those of `number`."""
    limits = f">= {low}" if high is None else f"from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{parameter} must be an integer {limits}, not {value!r}{_hint(value)}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{parameter} must be an integer {limits}, not {value!r}")
    return value


def _hint(value: object) -> str:
    """Return what to do where a policy was used as a decorator without having been made."""
    return "; to decorate with the defaults, write parentheses, as in @Retry()" if callable(value) else ""


def flag(parameter: str, value: Any) -> bool:
    """Return `value`, if it is True or False; otherwise raise TypeError."""
    if not isinstance(value, bool):
        raise TypeError(f"{parameter} must be True or False, not {value!r}")
    return value


def text(parameter: str, value: Any) -> str:
    """Return `value`, if it is a string that is not empty."""
    if not isinstance(value, str):
        raise TypeError(f"{parameter} must be a string, not {value!r}")
    if not value:
        raise ValueError(f"{parameter} must not be empty")
    return value


def choice(parameter: str, value: Any, options: type[Choice]) -> Choice:
    """Return `value` as a member of `options`."""
    allowed = _quoted(options)
    if not isinstance(value, str):
        raise TypeError(f"{parameter} must be one of {allowed}, not {value!r}")
    try:
        return options(value)
    except ValueError:
        raise ValueError(f"{parameter} must be one of {allowed}, not {value!r}") from None


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _range(low: float, above: bool, high: float) -> str:
    least = f"{'>' if above else '>='} {low:g}"
    return least if high == math.inf else f"{least} and <= {high:g}"
