"""How long to wait before a retry. Never above the cap, jitter included; no overflow at any attempt number.

`full_jitter` is the default for a reason: it needs no memory, makes the fewest calls, and takes no longer than the
others once many clients compete (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from abc import abstractmethod

from tenacity import RetryCallState
from tenacity.wait import wait_base

from resilience._util import validation
from resilience._util.clock import clock


class Backoff(wait_base):
    """A way to compute waits. Subclass it and write `seconds` to make your own.

    It is a `wait_base` of tenacity: it works in a plain `@tenacity.retry(wait=...)`, and `+` adds others to it.
    """

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds to wait, in the way in which tenacity asks."""
        return self.seconds(retry_state.attempt_number, retry_state.upcoming_sleep or None)

    @abstractmethod
    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the seconds to wait before a retry.

        Args:
            retry: 1 for the first retry.
            previous: the wait before the previous retry of this call; None for the first.
        """


class _Exponential(Backoff):
    def __init__(self, base: float, cap: float, *, factor: float) -> None:
        self.base = validation.number("base", base, above=True)
        self.cap = validation.number("cap", cap, low=self.base)
        self.factor = validation.number("factor", factor, low=1.0)

    def ceiling(self, retry: int) -> float:
        """min(cap, base x factor^(retry - 1)), without computing a power that is past the cap."""
        try:
            return min(self.cap, self.base * self.factor ** (retry - 1))
        except OverflowError:
            return self.cap

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}({self._settings()})"

    def _settings(self) -> str:
        return f"base={self.base:g}, cap={self.cap:g}, factor={self.factor:g}"


class full_jitter(_Exponential):
    """U(0, 1) x min(cap, base x factor^(n - 1)) before retry n.

    Args:
        base: seconds, > 0: the ceiling of the first wait.
        cap: seconds, >= base: the ceiling of every wait.
        factor: how much the ceiling grows with each retry, >= 1.
    """

    def __init__(self, base: float = 0.1, cap: float = 10.0, *, factor: float = 2.0) -> None:
        super().__init__(base, cap, factor=factor)

    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the wait in seconds."""
        return clock.random.random() * self.ceiling(retry)


class equal_jitter(_Exponential):
    """Half of min(cap, base x factor^(n - 1)), plus U(0, 1) x the other half. The parameters are `full_jitter`'s."""

    def __init__(self, base: float = 0.1, cap: float = 10.0, *, factor: float = 2.0) -> None:
        super().__init__(base, cap, factor=factor)

    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the wait in seconds."""
        half = self.ceiling(retry) / 2
        return half + clock.random.random() * half


class proportional(_Exponential):
    """base x factor^(n - 1), give or take `ratio` of it, and then the cap.

    Args:
        base: seconds, > 0: the middle of the first wait.
        cap: seconds, >= base: the most that any wait is, jitter included.
        factor: how much the middle grows with each retry, >= 1.
        ratio: the share by which a wait may differ from the middle, in (0, 1]. gRFC A6 has 0.2.
    """

    def __init__(self, base: float = 0.1, cap: float = 10.0, *, factor: float = 2.0, ratio: float = 0.25) -> None:
        super().__init__(base, cap, factor=factor)
        self.ratio = validation.number("ratio", ratio, above=True, high=1.0)

    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the wait in seconds."""
        return min(self.cap, self.ceiling(retry) * (1.0 + self.ratio * (2.0 * clock.random.random() - 1.0)))

    def _settings(self) -> str:
        return f"{super()._settings()}, ratio={self.ratio:g}"


class decorrelated_jitter(Backoff):
    """min(cap, U(base, 3 x previous wait)), where the wait before the first is `base`.

    Args:
        base: seconds, > 0: the least wait.
        cap: seconds, >= base: the most.
    """

    def __init__(self, base: float = 0.1, cap: float = 10.0) -> None:
        self.base = validation.number("base", base, above=True)
        self.cap = validation.number("cap", cap, low=self.base)

    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the wait in seconds."""
        last = max(self.base, self.base if previous is None else previous)
        return min(self.cap, self.base + clock.random.random() * (3.0 * last - self.base))

    def __repr__(self) -> str:
        return f"decorrelated_jitter(base={self.base:g}, cap={self.cap:g})"


class fixed(Backoff):
    """The same wait each time, without jitter: for a single client, or where something else spreads the load.

    Args:
        seconds: the wait, >= 0.
    """

    def __init__(self, seconds: float) -> None:
        self.wait = validation.number("seconds", seconds)

    def seconds(self, retry: int, previous: float | None) -> float:
        """Return the wait in seconds."""
        return self.wait

    def __repr__(self) -> str:
        return f"fixed({self.wait:g})"


def none() -> Backoff:
    """No wait at all: the next attempt follows at once. Only a budget then stands between you and a storm."""
    return fixed(0.0)
