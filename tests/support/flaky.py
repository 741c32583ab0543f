"""A function that fails at first."""

from __future__ import annotations

from collections.abc import Callable


class Flaky:
    """Fails so many times, then answers."""

    def __init__(self, failures: int = 10**9, error: Callable[[], Exception] = lambda: ConnectionError("down")) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error()
        return "fine"
