"""A reservation: a block of code that takes an estimate from a rate limit, and says afterwards what it really took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

from resilience._call.block import Block
from resilience._call.call import Call
from resilience._policies.rate_limit.gate import RateGate
from resilience._policies.rate_limit.source import Source
from resilience._policies.rate_limit.tokens import Corrections, Token
from resilience.errors import UsageError

UnitsT = TypeVar("UnitsT")
"""What a reservation is settled with: a number of units, or one for each of several rate limits."""


class Reservation(Generic[UnitsT]):
    """A block of code that takes an estimate from a rate limit: `async with limit.reserve(1200) as reserved:`.

    `RateLimit.reserve` and `CombinedRateLimit.reserve` make it. It is entered once, and waits then as a call would. A
    block that is not settled has taken its estimate, also if an exception leaves it.
    """

    def __init__(self, gate: RateGate, estimates: Mapping[Source, float]) -> None:
        self._gate = gate
        self._estimates = estimates
        self._block = Block(gate, self._admit)
        self._token: Token | None = None
        self._entered = False

    def _admit(self, call: Call) -> Token:
        """Admit the block, in place of the `admit` of the gate."""
        self._token = self._gate.admit_with(call, self._estimates, track=True)
        return self._token

    def settle(self, units: UnitsT) -> None:
        """Say what was really used. Less than the estimate is refunded, and more is a debt, which delays later calls.

        Args:
            units: the units, >= 0. For a reservation of several rate limits, a mapping of rate limits to units; the
                estimates of the others stay.

        Raises:
            TypeError, ValueError: `units` is of the wrong type, or out of range.
            UsageError: the reservation was not entered yet.

        It may be called during the block and after it, and more than once; the last number counts. Where much is
        refunded, the refund is smaller the more calls were admitted since, if it comes after the end of the block.
        """
        amounts = self._gate.amounts("units", units)
        if not self._entered:
            raise UsageError(
                "a reservation is settled during its block, or after it: `with limit.reserve(1200) as one:`"
            )
        if self._token is None or not self._block.admitted:
            return  # the limit is off, or in shadow mode and would not have admitted it
        admitted = self._gate.admitted_of(self._token)
        used: Corrections = []
        for source, amount in amounts.items():
            used += admitted.of(source.meter, amount)
        self._gate.correct(admitted, used, close=False)

    def __enter__(self) -> Self:
        """Take the estimate, or raise the rejection. A thread may wait.

        Raises:
            RateLimitedError: the wait would be longer than permitted.
            UsageError: it would have to wait in a task of an event loop, where `async with` is needed; or it was
                entered before.
        """
        self._block.__enter__()
        self._entered = True
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """End the block."""
        self._block.__exit__(kind, error, traceback)

    async def __aenter__(self) -> Self:
        """Take the estimate, or raise the rejection. The task may wait."""
        await self._block.__aenter__()
        self._entered = True
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """End the block."""
        self._block.__exit__(kind, error, traceback)

    def __reduce__(self) -> Any:
        raise TypeError("a Reservation cannot be copied or pickled: it would be settled twice")
