"""Backoff strategies: how long to wait before a retry.

No wait exceeds the cap, jitter included, and no attempt number causes an overflow. All times are in seconds.

`full_jitter` is the default because it keeps no state, makes the fewest calls, and takes no longer than the other
strategies when many clients compete (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from abc import abstractmethod

from tenacity import RetryCallState
from tenacity.wait import wait_base

from resilience._util import validation
from resilience._util.clock import clock

__all__ = [
    "Backoff",
    "decorrelated_jitter",
    "equal_jitter",
    "fixed",
    "full_jitter",
    "none",
    "proportional",
]


class Backoff(wait_base):
    """Base class of backoff strategies. A subclass implements `seconds`.

    It is a `wait_base` of tenacity: it can be passed to `@tenacity.retry(wait=...)`, and `+` adds other strategies.
    """

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the wait in seconds; this is the interface of tenacity's strategies.

        Args:
            retry_state: the state of the call; its `attempt_number` and `upcoming_sleep` are used.
        """
        return self.seconds(retry_state.attempt_number, retry_state.upcoming_sleep or None)

    @abstractmethod
    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the wait before a retry, in seconds >= 0.

        Args:
            retry: the number of the retry; 1 for the first.
            previous: the wait before the previous retry of this call, in seconds; None for the first.
        """


class _Exponential(Backoff):
    def __init__(self, base: float, cap: float, *, factor: float) -> None:
        self.base = validation.number("base", base, above=True)
        self.cap = validation.number("cap", cap, low=self.base)
        self.factor = validation.number("factor", factor, low=1.0)

    def ceiling(self, retry: int) -> float:
        """Return min(cap, base x factor^(retry - 1)), also where the power overflows."""
        try:
            return min(self.cap, self.base * self.factor ** (retry - 1))
        except OverflowError:
            return self.cap

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}({self._settings()})"

    def _settings(self) -> str:
        return f"base={self.base:g}, cap={self.cap:g}, factor={self.factor:g}"


class full_jitter(_Exponential):
    """Exponential backoff with full jitter: U(0, 1) x min(cap, base x factor^(n - 1)) before retry n.

    Args:
        base: the longest first wait, in seconds > 0.
        cap: the longest wait, in seconds >= base.
        factor: the factor by which the longest wait grows with each retry, >= 1.

    Raises:
        TypeError, ValueError: a parameter has the wrong type or is out of range.
    """

    def __init__(self, base: float = 0.1, cap: float = 10.0, *, factor: float = 2.0) -> None:
        super().__init__(base, cap, factor=factor)

    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the wait before a retry, in seconds."""
        return clock.random.random() * self.ceiling(retry)


class equal_jitter(_Exponential):
    """Exponential backoff with equal jitter: half of min(cap, base x factor^(n - 1)), plus U(0, 1) x the other half.

    Args:
        base: the longest first wait, in seconds > 0.
        cap: the longest wait, in seconds >= base.
        factor: the factor by which the longest wait grows with each retry, >= 1.

    Raises:
        TypeError, ValueError: a parameter has the wrong type or is out of range.
    """

    def __init__(self, base: float = 0.1, cap: float = 10.0, *, factor: float = 2.0) -> None:
        super().__init__(base, cap, factor=factor)

    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the wait before a retry, in seconds."""
        half = self.ceiling(retry) / 2
        return half + clock.random.random() * half


class proportional(_Exponential):
    """Exponential backoff with proportional jitter: min(cap, base x factor^(n - 1)) x U(1 - ratio, 1 + ratio).

    The result is limited to `cap` again.

    Args:
        base: the mean of the first wait, in seconds > 0.
        cap: the longest wait, jitter included, in seconds >= base.
        factor: the factor by which the mean grows with each retry, >= 1.
        ratio: the share of the mean by which a wait may differ from it, in (0, 1]. gRFC A6 uses 0.2.

    Raises:
        TypeError, ValueError: a parameter has the wrong type or is out of range.
    """

    def __init__(self, base: float = 0.1, cap: float = 10.0, *, factor: float = 2.0, ratio: float = 0.25) -> None:
        super().__init__(base, cap, factor=factor)
        self.ratio = validation.number("ratio", ratio, above=True, high=1.0)

    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the wait before a retry, in seconds."""
        return min(self.cap, self.ceiling(retry) * (1.0 + self.ratio * (2.0 * clock.random.random() - 1.0)))

    def _settings(self) -> str:
        return f"{super()._settings()}, ratio={self.ratio:g}"


class decorrelated_jitter(Backoff):
    """Decorrelated jitter: min(cap, U(base, 3 x previous wait)); for the first wait, the previous one is `base`.

    Args:
        base: the shortest wait, in seconds > 0.
        cap: the longest wait, in seconds >= base.

    Raises:
        TypeError, ValueError: a parameter has the wrong type or is out of range.
    """

    def __init__(self, base: float = 0.1, cap: float = 10.0) -> None:
        self.base = validation.number("base", base, above=True)
        self.cap = validation.number("cap", cap, low=self.base)

    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the wait before a retry, in seconds."""
        last = max(self.base, self.base if previous is None else previous)
        return min(self.cap, self.base + clock.random.random() * (3.0 * last - self.base))

    def __repr__(self) -> str:
        return f"decorrelated_jitter(base={self.base:g}, cap={self.cap:g})"


class fixed(Backoff):
    """The same wait before each retry, without jitter: for a single client, or where the load is spread otherwise.

    Args:
        seconds: the wait, in seconds >= 0.

    Raises:
        TypeError, ValueError: `seconds` has the wrong type or is out of range.
    """

    def __init__(self, seconds: float) -> None:
        self.wait = validation.number("seconds", seconds)

    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the wait before a retry, in seconds."""
        return self.wait

    def __repr__(self) -> str:
        return f"fixed({self.wait:g})"


def none() -> Backoff:
    """Return a strategy without waits: each retry follows at once. Only a retry budget then limits the load."""
    return fixed(0.0)
