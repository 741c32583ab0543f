"""What the runtimes need to know of attempts that race."""

from __future__ import annotations

from typing import Any, Protocol


class Racers(Protocol):
    """The attempts of one race, as the runtimes see them."""

    @property
    def over(self) -> bool:
        """Whether the outcome is known."""
        ...

    def next_at(self) -> float:
        """Return when the next attempt is due, in seconds of the library's monotonic clock; FOREVER for none."""
        ...

    def start_next(self) -> Any:
        """Return the attempt to start now; None if none is due."""
        ...

    async def make(self, attempt: Any) -> None:
        """Make an attempt, and take note of its outcome; only a cancellation is raised."""
        ...

    def ended(self, attempt: Any) -> None:
        """Take note of the outcome of an attempt, which is set on it."""
        ...

    def lost(self, attempt: Any) -> None:
        """Take note that an attempt was cancelled, since the race is over."""
        ...

    def cancelled(self, attempt: Any) -> None:
        """Take note that an attempt was cancelled from outside."""
        ...
