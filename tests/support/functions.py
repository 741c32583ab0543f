"""Functions to call through a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import anyio


def down() -> Any:
    """Fail, as a dependency that cannot be reached does."""
    raise ConnectionError("down")


async def fine() -> str:
    """Return, as a dependency that answers does."""
    return "fine"


def pages() -> Generator[int]:
    """Be a generator function, which nothing can guard."""
    yield 1


async def hang() -> str:
    """Wait for ever."""
    await anyio.Event().wait()
    return "never"


class AppError(Exception):
    """An error of the application, which no allowlist lists."""


def raising(error: BaseException) -> Callable[[], str]:
    """Return a function that raises `error`."""

    def work() -> str:
        raise error

    return work


class Flaky:
    """Fails on every odd call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls % 2:
            raise ConnectionError


class Failing:
    """Fails so many times, by default always, and then answers; it counts its calls."""

    def __init__(self, failures: int = 10**9, error: Callable[[], Exception] = lambda: ConnectionError("down")) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error()
        return "fine"
