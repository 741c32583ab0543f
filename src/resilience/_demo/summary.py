"""The numbers of a run: what each arm got, what it cost the services, and how soon it was well again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from resilience._demo.records import CallRecord
from resilience._demo.run import Result
from resilience._demo.script import BIN, Arm, ServiceName, Span

RECOVERED = 0.9
"""The share of calls that is served in each half second after the recovery."""
NEVER = math.inf


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The numbers of one arm, over both services.

    Attributes:
        arm: the arm.
        calls: the calls that were made.
        served: those that were answered.
        attempts: the attempts that the client sent.
        load: the requests that the services counted while they were sick; None for services of the user.
        no_after: how long the callers of failed calls waited, on average, in seconds; 0 without any.
        recovered: the seconds from "healthy again" until at least nine of ten calls are served, of the service that
            takes longer; `NEVER` if that was not so at the end; None where the day has no such phase.
        doubled: the orders that were carried out twice or more often, as the services counted; None for services of
            the user.
    """

    arm: Arm
    calls: int
    served: int
    attempts: int
    load: int | None
    no_after: float
    recovered: float | None
    doubled: int | None


def summaries(result: Result) -> dict[Arm, Summary]:
    """Return the numbers of each arm."""
    return {arm: _summary(result, arm) for arm in result.plan.arms}


def _summary(result: Result, arm: Arm) -> Summary:
    calls = [call for call in result.records.calls if call.arm is arm]
    failed = [call.seconds for call in calls if not call.served]
    sick = {span.phase.name for span in result.plan.day if span.phase.sick}
    seen = [report[arm] for report in result.seen.values()]
    load = sum(number for one in seen for phase, number in one["phases"].items() if phase in sick)
    again = result.plan.day[-1]
    return Summary(
        arm=arm,
        calls=len(calls),
        served=len(calls) - len(failed),
        attempts=sum(number for (_, of, _), number in result.records.sent.items() if of is arm),
        load=load if seen else None,
        no_after=sum(failed) / len(failed) if failed else 0.0,
        recovered=max(recovery(of_service(calls, one), again) for one in result.plan.services) if sick else None,
        doubled=sum(one["doubled"] for one in seen) if seen else None,
    )


def of_service(calls: Sequence[CallRecord], service: ServiceName) -> list[CallRecord]:
    """Return the calls of one service."""
    return [call for call in calls if call.service is service]


def recovery(calls: Sequence[CallRecord], again: Span) -> float:
    """Return the seconds from the beginning of a phase to the end of its last half second with too many failures."""
    bins = math.ceil((again.end - again.start) / BIN)
    made, served = [0] * bins, [0] * bins
    for call in calls:
        at = int((call.arrival.due - again.start) / BIN)
        if call.arrival.due >= again.start and at < bins:
            made[at] += 1
            served[at] += call.served
    bad = [at for at in range(bins) if served[at] < RECOVERED * made[at]]
    if not bad:
        return 0.0
    return NEVER if bad[-1] == bins - 1 else (bad[-1] + 1) * BIN


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest of ascending numbers that is no less than this share of them."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def shortfalls(found: dict[Arm, Summary], *, within: float = 5.0) -> list[str]:
    """Return in what `standard` is not better than the other arms, in a run against the services of the demo.

    Args:
        found: the numbers of the arms.
        within: the longest time to recover, in seconds.
    """
    ours = found[Arm.STANDARD]
    wrong: list[str] = []
    for other in found.values():
        if other.arm is not Arm.STANDARD:
            if ours.served < other.served:
                wrong.append(f"served {ours.served} calls, {other.arm} {other.served}")
            if ours.load is not None and other.load is not None and ours.load >= other.load:
                wrong.append(f"put a load of {ours.load} on the sick services, {other.arm} {other.load}")
    if ours.recovered is not None and ours.recovered > within:
        wrong.append(f"recovered after {ours.recovered:.1f} s")
    if ours.doubled:
        wrong.append(f"doubled {ours.doubled} orders")
    return wrong
