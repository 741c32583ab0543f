"""The retry budget: how much additional load all retries of a client may cause together.

A fixed number of attempts multiplies the load when the dependency is least able to handle it. A budget limits the
total: each retry takes a token, and only successes add tokens, so retries stop when no attempt succeeds.
"""

from __future__ import annotations

import itertools
from enum import Enum
from functools import partial
from typing import Any, Final, NoReturn

from resilience._util import validation
from resilience._util.finalizers import pending, put_off, run_pending
from resilience._util.locks import inside_state, state_lock

UNIT = 10**9
"""Tokens are counted in integer billionths, so that ten times 0.1 is exactly 1."""
MAX_TOKENS = 1e12
"""The most tokens that are counted. A larger bucket is never empty in practice."""


class Inherit(Enum):
    """The default of `budget=` of a policy: use what the pipeline has."""

    PIPELINE = "the pipeline's"
    """The budget of the pipeline; a Pipeline makes one of its own."""

    def __repr__(self) -> str:
        return self.value


PIPELINE: Final = Inherit.PIPELINE


class RetryBudget:
    """A limit on retries: a token bucket to which a success adds `ratio` tokens and from which a retry takes one.

    Args:
        ratio: the tokens that each successful attempt adds, in (0, 1]. 0.2 allows one retry for five successes in the
            long run; Finagle, Linkerd and Envoy use the same ratio.
        capacity: the maximum number of tokens, >= 1: the largest burst of retries after a time without retries.
        initial: the tokens at the start, from 0 to `capacity`; None for `capacity`.

    Raises:
        TypeError, ValueError: a parameter has the wrong type or is out of range.

    Successes add tokens, not requests, since a budget that requests fill keeps an overload going when the dependency
    runs near its capacity. A withdrawal that is denied changes nothing, and never stops an attempt in flight. All
    numbers are exact under threads; a deposit takes no lock. One budget may be shared by several pipelines.
    """

    counts_failures = False
    """Whether `failed` has an effect, and so has to be called; True for a subclass that overrides it."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.counts_failures = cls.failed is not RetryBudget.failed

    def __init__(self, ratio: float = 0.2, capacity: float = 10.0, *, initial: float | None = None) -> None:
        self.ratio = validation.number("ratio", ratio, above=True, high=1.0)
        self.capacity = validation.number("capacity", capacity, low=1.0)
        start = self.capacity if initial is None else validation.number("initial", initial, high=self.capacity)
        self._fill(max(1, round(self.ratio * UNIT)), _units(self.capacity), _units(start))

    @classmethod
    def grpc(cls, max_tokens: int = 10, token_ratio: float = 0.1) -> RetryBudget:
        """Return a budget with the arithmetic of gRPC's retry throttling (gRFC A6).

        Args:
            max_tokens: the tokens at the start, which is also the maximum, from 1 to 1000.
            token_ratio: the tokens that each success adds, >= 0.001. As in A6, decimals after the third are ignored.

        Raises:
            TypeError, ValueError: a parameter has the wrong type or is out of range.

        Each counted failure takes one token, also if no attempt is left. A retry takes none, and is allowed
        while there are more than `max_tokens / 2` tokens.
        """
        return _GrpcRetryBudget(max_tokens, token_ratio)

    def _fill(self, gain: int, most: int, start: int) -> None:
        self._gain = gain
        self._most = most
        self._start = start
        self._tokens = start
        self._deposits = itertools.count()
        self._seen = 0
        self.deposit = self._deposits.__next__
        """Add `ratio` tokens for one successful attempt, up to `capacity`. The return value has no meaning."""

    def withdraw(self) -> bool:
        """Take one token for a retry. Return False, and change nothing, if there is less than one token.

        It also returns False to a finalizer or a signal handler that has interrupted a change of the state.
        """
        if inside_state():
            return False
        with state_lock:
            # The same as `_collect`, without a call.
            drawn = next(self._deposits)
            tokens = self._tokens + (drawn - self._seen) * self._gain
            self._seen = drawn + 1
            if tokens > self._most:
                tokens = self._most
            granted = tokens >= UNIT
            self._tokens = tokens - UNIT if granted else tokens
        if pending:
            run_pending()
        return granted

    def refund(self) -> None:
        """Return the token for a retry that was not made, such as one that an inner policy rejected."""
        self._change(UNIT)

    @property
    def affordable(self) -> bool:
        """Whether `withdraw` would return True now."""
        return self._change(0) >= UNIT

    def failed(self) -> None:
        """Count a failure. It has no effect, except in a budget made by `grpc`, where it takes a token."""

    @property
    def tokens(self) -> float:
        """The number of tokens now, from 0 to `capacity`."""
        return self._change(0) / UNIT

    def reset(self) -> None:
        """Set the number of tokens to that at the start."""
        if inside_state():
            put_off(self.reset)
            return
        with state_lock:
            self._collect()
            self._tokens = self._start
        if pending:
            run_pending()

    def snapshot(self) -> dict[str, Any]:
        """Return the state as data: `tokens` and `capacity`."""
        return {"tokens": self.tokens, "capacity": self.capacity}

    def describe(self) -> dict[str, Any]:
        """Return the settings as data: `ratio` and `capacity`."""
        return {"ratio": self.ratio, "capacity": self.capacity}

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "a RetryBudget cannot be copied or pickled: its tokens would exist twice; share the object, or make "
            "another one with the same settings"
        )

    def __repr__(self) -> str:
        return f"RetryBudget(ratio={self.ratio:g}, capacity={self.capacity:g})"

    def _change(self, by: int) -> int:
        """Add `by` to the tokens, within their bounds, and return them; all in billionths."""
        if inside_state():
            if by:
                put_off(partial(self._change, by))
            return self._tokens
        with state_lock:
            self._collect()
            self._tokens = tokens = max(0, min(self._most, self._tokens + by))
        if pending:
            run_pending()
        return tokens

    def _collect(self) -> None:
        """Convert the deposits since the last call into tokens. The lock is held.

        Only deposits happen between two calls, so limiting their sum is the same as limiting each of them. Reading the
        counter advances it; `_seen` is its value after the last reading.
        """
        drawn = next(self._deposits)
        self._tokens = min(self._most, self._tokens + (drawn - self._seen) * self._gain)
        self._seen = drawn + 1


class _GrpcRetryBudget(RetryBudget):
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
        """Do nothing: a retry takes no token."""

    @property
    def affordable(self) -> bool:
        return self._change(0) * 2 > self._most

    def failed(self) -> None:
        self._change(-UNIT)

    def __repr__(self) -> str:
        return f"RetryBudget.grpc(max_tokens={self.capacity:g}, token_ratio={self.ratio:g})"


def _units(tokens: float) -> int:
    return round(min(tokens, MAX_TOKENS) * UNIT)
