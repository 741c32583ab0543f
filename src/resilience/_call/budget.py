"""The retry budget: how much extra load all the retries and hedges of a client may make together.

A fixed number of attempts multiplies the load just when the dependency can bear it least. A budget bounds the
sum: retries are paid for by successes, so when nothing succeeds any more, retrying stops.
"""

from __future__ import annotations

import itertools
from typing import Any

from resilience._util import validation
from resilience._util.locks import new_lock

UNIT = 10**6
"""Tokens are counted in whole millionths, so that ten times 0.1 is exactly 1."""
MOST = 1e12
"""A bucket larger than this is never empty."""


class RetryBudget:
    """A token bucket: each successful attempt adds `ratio` of a token, each retry or hedge costs one.

    Args:
        ratio: tokens per successful attempt, in (0, 1]. 0.2 allows one retry for five successes in the long run;
            Finagle, Linkerd and Envoy use the same share.
        capacity: the most tokens that it holds, >= 1: the burst of retries that a quiet time saves up.
        initial: tokens at the start, from 0 to `capacity`; None means full.

    Raises:
        TypeError, ValueError: a parameter of the wrong type or out of range.

    Depositing on success, not on request, is deliberate: a budget fed by requests keeps an overload alive when the
    dependency runs near its capacity. Refused withdrawals change nothing, and never stop an attempt in flight. All
    numbers are exact under threads; a deposit takes no lock.
    """

    counts_failures = False
    """Whether `failed` does anything, so that it has to be called."""

    def __init__(self, ratio: float = 0.2, capacity: float = 10.0, *, initial: float | None = None) -> None:
        self.ratio = validation.number("ratio", ratio, above=True, high=1.0)
        self.capacity = validation.number("capacity", capacity, low=1.0)
        start = self.capacity if initial is None else validation.number("initial", initial, high=self.capacity)
        self._fill(max(1, round(self.ratio * UNIT)), _units(self.capacity), _units(start))

    @classmethod
    def grpc(cls, max_tokens: int = 10, token_ratio: float = 0.1) -> RetryBudget:
        """Make a budget with the arithmetic of gRPC's retry throttling (gRFC A6).

        Args:
            max_tokens: the tokens at the start and at most, from 1 to 1000.
            token_ratio: tokens per success, >= 0.001; more than three decimals are cut off, as A6 says.

        Every counted failure costs one token, also when no attempt is left; a retry or hedge costs nothing by
        itself, and is allowed while there are more than `max_tokens / 2`.
        """
        return _GrpcRetryBudget(max_tokens, token_ratio)

    def _fill(self, gain: int, most: int, start: int) -> None:
        self._lock = new_lock()
        self._gain = gain
        self._most = most
        self._start = start
        self._tokens = start
        self._deposits = itertools.count()
        self._seen = 0
        self.deposit = self._deposits.__next__
        """Add `ratio` of a token for one successful attempt; what does not fit is lost. Returns nothing of use."""

    def withdraw(self) -> bool:
        """Pay for one retry or hedge. False: there is less than one token, and nothing changes."""
        with self._lock:
            # What `_collect` does, without the call.
            drawn = next(self._deposits)
            tokens = self._tokens + (drawn - self._seen) * self._gain
            self._seen = drawn + 1
            if tokens > self._most:
                tokens = self._most
            granted = tokens >= UNIT
            self._tokens = tokens - UNIT if granted else tokens
            return granted

    def refund(self) -> None:
        """Take back the payment for a retry or hedge that was not made after all."""
        with self._lock:
            self._collect()
            self._tokens = min(self._most, self._tokens + UNIT)

    @property
    def affordable(self) -> bool:
        """Whether a withdrawal would be granted now."""
        with self._lock:
            self._collect()
            return self._tokens >= UNIT

    def failed(self) -> None:
        """Note a failure that counts. It costs nothing here; see `grpc`."""

    @property
    def tokens(self) -> float:
        """The balance now, from 0 to `capacity`."""
        with self._lock:
            self._collect()
            return self._tokens / UNIT

    def reset(self) -> None:
        """Start over with the tokens of the beginning."""
        with self._lock:
            self._collect()
            self._tokens = self._start

    def snapshot(self) -> dict[str, Any]:
        """Return the balance as data."""
        return {"tokens": self.tokens, "capacity": self.capacity}

    def describe(self) -> dict[str, Any]:
        """Return the settings as data."""
        return {"ratio": self.ratio, "capacity": self.capacity}

    def __repr__(self) -> str:
        return f"RetryBudget(ratio={self.ratio:g}, capacity={self.capacity:g})"

    def _collect(self) -> None:
        """Turn the deposits since the last look into tokens. Lock held.

        Only deposits happen between two looks, so clamping their sum once is clamping each of them. Looking at
        the counter draws a number from it; `_seen` is how many numbers there were before the deposits to come.
        """
        drawn = next(self._deposits)
        self._tokens = min(self._most, self._tokens + (drawn - self._seen) * self._gain)
        self._seen = drawn + 1


class _GrpcRetryBudget(RetryBudget):
    counts_failures = True

    def __init__(self, max_tokens: int, token_ratio: float) -> None:
        self.capacity = float(validation.integer("max_tokens", max_tokens, low=1, high=1000))
        ratio = min(validation.number("token_ratio", token_ratio, low=0.001), self.capacity)
        thousandths = int(ratio * 1000 + 1e-9)
        self.ratio = thousandths / 1000
        most = max_tokens * UNIT
        self._fill(thousandths * UNIT // 1000, most, most)

    def withdraw(self) -> bool:
        return self.affordable

    def refund(self) -> None:
        """A retry costs nothing by itself."""

    @property
    def affordable(self) -> bool:
        with self._lock:
            self._collect()
            return self._tokens * 2 > self._most

    def failed(self) -> None:
        with self._lock:
            self._collect()
            self._tokens = max(0, self._tokens - UNIT)

    def __repr__(self) -> str:
        return f"RetryBudget.grpc(max_tokens={self.capacity:g}, token_ratio={self.ratio:g})"


def _units(tokens: float) -> int:
    return round(min(tokens, MOST) * UNIT)
