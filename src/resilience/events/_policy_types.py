"""The event classes of hedges, cooldowns and faults, and of waits for a policy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from resilience.events._types import Event, Mode


class HedgeResult(StrEnum):
    """What came of the further attempts of a Hedge."""

    WON = "won"
    """The outcome of the call is that of a further attempt."""
    LOST = "lost"
    """The outcome of the call is that of the first attempt, or there is none."""
    REFUSED = "refused"
    """No further attempt was started, since the budget was empty or a breaker inside was not closed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HedgeStarted(Event):
    """A Hedge started another attempt, beside those that are running.

    Attributes:
        attempt: the number of the attempt that is started, from 2.
        after: the seconds since the first attempt began.
        mode: the mode of the Hedge; in shadow mode the attempt is not made.
    """

    attempt: int
    after: float
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HedgeEnded(Event):
    """A call for which a Hedge had started, or wanted to start, another attempt has ended.

    Attributes:
        result: what came of it.
        attempts: the number of attempts that were made.
        mode: the mode of the Hedge.
    """

    result: HedgeResult
    attempts: int
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CooldownStarted(Event):
    """A Cooldown holds calls back, since the server asked for a pause; or it does so for longer than before.

    Attributes:
        seconds: for how long from now, without the time over which the waiting calls are spread.
        extended: whether it held calls back already.
        mode: the mode of the Cooldown; in shadow mode no call is held back.
    """

    seconds: float
    extended: bool
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CooldownEnded(Event):
    """A Cooldown does not hold calls back any more. It is noticed by the first call after the end.

    Attributes:
        seconds: for how long it has held calls back.
        mode: the mode of the Cooldown.
    """

    seconds: float
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FaultInjected(Event):
    """A Chaos injected a fault.

    Attributes:
        latency: the delay, in seconds.
        error_type: the type of the exception, such as "ConnectionError"; empty if none is raised.
        result: whether a value is returned in place of what is inside.
        mode: the mode of the Chaos; in shadow mode nothing is injected.
    """

    latency: float
    error_type: str
    result: bool
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Waited(Event):
    """A call has waited for a policy: in the queue of a bulkhead, for its slot of a rate limit, or for a cooldown.

    The wait of a call that is cancelled meanwhile is not published.

    Attributes:
        seconds: for how long.
        admitted: whether the policy has admitted it. Otherwise it was rejected, or its deadline has passed.
        partition_key: the key of the policy in its Partition; None for the overflow policy, and without a Partition.
    """

    seconds: float
    admitted: bool
    partition_key: object = None
