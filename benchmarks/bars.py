"""What the benchmarks have to reach, as data, and who has reached it.

Names are those of sections and contenders: "sync/resilience pipeline" was measured in the section "sync".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.arithmetic import median, ratio, uncertainty

ACCEPTED_ABSENCES: Mapping[str, str] = {}
"""Peers that may be missing, and why. Without such a peer its bar counts as kept; without any other it does not."""

CERTAIN = 0.01
"""A ratio is certain enough when its interval reaches no further than this share of it."""


@dataclass(frozen=True)
class Bar:
    """What a measured number must not exceed, or not fall below.

    Args:
        name: what it is about.
        of: the contender.
        to: whom it is compared with; of several, the one that comes out fastest. None: the number itself counts.
        aim: what a prototype reached; None where none did.
        bar: what is required.
        at_most: False: the number must not fall below the bar.
        unit: of the number, where it is no ratio.
    """

    name: str
    of: str
    to: tuple[str, ...]
    aim: float | None
    bar: float
    at_most: bool = True
    unit: str = "x"

    @property
    def section(self) -> str:
        return self.of.partition("/")[0]


_OPEN_RIVALS = (
    "aiobreaker", "circuitbreaker", "crashbytes-resilience", "grit-toolkit", "interlock-cb", "pybreaker",
    "pyresilience", "resilient-circuit",
)  # fmt: skip
_CRASHBYTES = "crashbytes-resilience pipeline"
_PARTITIONED = {
    "Bulkheads": "Bulkhead",
    "CircuitBreakers": "CircuitBreaker",
    "CircuitBreakers, callable": "CircuitBreaker",
}

BARS = (
    Bar("full pipeline, sync, to crashbytes", "sync/resilience pipeline", (f"sync/{_CRASHBYTES}",), 0.43, 0.6),
    Bar("full pipeline, sync, to tenacity alone", "sync/resilience pipeline", ("sync/tenacity retry",), 0.09, 0.15),
    Bar(
        "pipeline without Timeout, asyncio, to crashbytes",
        "asyncio/resilience pipeline without Timeout",
        (f"asyncio/{_CRASHBYTES}",),
        0.43,
        0.6,
    ),
    Bar(
        "pipeline with one Timeout, asyncio, to grit with timeout",
        "asyncio/resilience pipeline",
        ("asyncio/grit-toolkit pipeline with timeout",),
        0.19,
        0.3,
    ),
    Bar(
        "Cooldown and CircuitBreaker to CircuitBreaker alone",
        "sync/resilience Cooldown and CircuitBreaker",
        ("sync/resilience CircuitBreaker",),
        None,
        1.25,
    ),
    Bar("AdaptiveLimit to Bulkhead", "sync/resilience AdaptiveLimit", ("sync/resilience Bulkhead",), None, 1.3),
    Bar(
        "RateLimit alone, sync, to crashbytes' limiter",
        "sync/resilience RateLimit",
        ("sync/crashbytes-resilience rate limiter",),
        None,
        1.2,
    ),
    Bar(
        "two Timeouts to one, asyncio",
        "asyncio/resilience pipeline with two Timeouts",
        ("asyncio/resilience pipeline",),
        None,
        1.15,
    ),
    Bar(
        "pipeline with one Timeout, trio, to move_on_after",
        "trio/resilience pipeline",
        ("trio/trio.move_on_after",),
        None,
        1.6,
    ),
    Bar(
        "two Timeouts to one, trio",
        "trio/resilience pipeline with two Timeouts",
        ("trio/resilience pipeline",),
        None,
        1.15,
    ),
    Bar(
        "a failure, then success: full pipeline, to crashbytes' success",
        "failure-sync/resilience pipeline",
        (f"failure-sync/{_CRASHBYTES}, success",),
        1.8,
        2.5,
    ),
    Bar(
        "a failure, then success: Retry alone, to crashbytes' success",
        "failure-sync/resilience Retry",
        (f"failure-sync/{_CRASHBYTES}, success",),
        0.65,
        1.1,
    ),
    Bar(
        "a failure, then success: Retry alone, asyncio, to grit's",
        "failure-asyncio/resilience Retry",
        ("failure-asyncio/grit-toolkit retry",),
        None,
        1.0,
    ),
    Bar(
        "open rejection: breaker alone, to the fastest peer",
        "open-sync/resilience CircuitBreaker",
        tuple(f"open-sync/{peer} breaker" for peer in _OPEN_RIVALS),
        1.06,
        1.8,
    ),
    Bar(
        "open rejection: full pipeline, to the fastest peer's breaker",
        "open-sync/resilience pipeline",
        tuple(f"open-sync/{peer} breaker" for peer in _OPEN_RIVALS),
        None,
        4.8,
    ),
    Bar(
        "Hedge, asyncio, the first attempt wins at once, to grit's",
        "hedge-asyncio/resilience Hedge",
        ("hedge-asyncio/grit-toolkit hedge",),
        None,
        1.2,
    ),
    Bar(
        "calls per second of 8 threads on one breaker, to one thread's",
        "threads/resilience CircuitBreaker, 1 thread",  # the one thread's first: what is measured is time per call
        ("threads/resilience CircuitBreaker, 8 threads",),
        0.99,
        0.9,
        at_most=False,
    ),
    *(
        Bar(
            f"Partition to the policy alone, {section}: {kind}",
            f"{section}/resilience Partition of {kind}",
            (f"{section}/resilience {alone}",),
            None,
            1.3,
        )
        for section in ("sync", "asyncio")
        for kind, alone in _PARTITIONED.items()
    ),
    Bar(
        "a window of 1,000 s to one of 1 s, success",
        "window/resilience CircuitBreaker, 1,000 s",
        ("window/resilience CircuitBreaker, 1 s",),
        1.0,
        1.05,
    ),
    Bar(
        "a window of 1,000 s to one of 1 s, a failure, then success",
        "window/resilience Retry and CircuitBreaker, 1,000 s, failure",
        ("window/resilience Retry and CircuitBreaker, 1 s, failure",),
        1.0,
        1.05,
    ),
    Bar(
        "memory of a function behind a full pipeline",
        "memory/a function behind resilience pipeline",
        (),
        None,
        8192,
        unit="bytes",
    ),
    *(
        Bar(
            f"what a pipeline adds to a request, {runtime}, to what httpx-retries adds",
            f"http-{runtime}/resilience pipeline, added",
            (f"http-{runtime}/httpx-retries, added",),
            None,
            4.0,
        )
        for runtime in ("sync", "asyncio")
    ),
    *(
        Bar(
            f"CPU of a request over loopback, {runtime}, to bare httpx",
            f"http-loopback-{runtime}/resilience pipeline",
            (f"http-loopback-{runtime}/httpx",),
            None,
            1.03,
        )
        for runtime in ("sync", "asyncio")
    ),
    *(
        Bar(
            f"CPU of a unary RPC, {runtime}, to a pass-through interceptor",
            f"grpc-{runtime}/resilience pipeline",
            (f"grpc-{runtime}/grpc, pass-through interceptor",),
            None,
            1.12,
        )
        for runtime in ("sync", "asyncio")
    ),
    *(
        Bar(
            f"CPU of a message of a response stream, {runtime}, to bare grpc",
            f"grpc-stream-{runtime}/resilience pipeline",
            (f"grpc-stream-{runtime}/grpc",),
            None,
            1.1,
        )
        for runtime in ("sync", "asyncio")
    ),
    Bar(
        "what PrometheusMetrics adds to a call, to the same counts by bound children",
        "metrics/pipeline with PrometheusMetrics, added",
        ("metrics/bound children",),
        0.27,
        0.4,
    ),
    Bar(
        "a scrape of 100 pipelines with 6 policies each, to one of as many plain series",
        "metrics/a scrape of 100 pipelines",
        ("metrics/a scrape of as many plain series",),
        None,
        5.0,
    ),
    Bar("memory of a breaker", "memory/resilience CircuitBreaker, in use", (), None, 3072, unit="bytes"),
    Bar("memory gained by a million calls, sync", "memory/growth, sync", (), 0, 4096, unit="bytes"),
    Bar("memory gained by a million calls, asyncio", "memory/growth, asyncio", (), 0, 4096, unit="bytes"),
    Bar("import resilience, on top of anyio and tenacity", "import/resilience", (), None, 30, unit="ms"),
)


@dataclass(frozen=True)
class Missing:
    """Why a contender was not measured, and what it is a part of."""

    package: str
    why: str


class Status(StrEnum):
    """What became of a bar."""

    MET = "met"
    MISSED = "MISSED"
    NOT_MEASURED = "NOT MEASURED"
    ACCEPTED = "peer absent, accepted"


@dataclass(frozen=True)
class Verdict:
    """What became of a bar, by which number, and against whom."""

    bar: Bar
    status: Status
    value: float | None = None
    uncertainty: float | None = None
    to: str = ""
    why: str = ""

    @property
    def good(self) -> bool:
        return self.status in (Status.MET, Status.ACCEPTED)


Found = Mapping[str, Sequence[float]]


def judge(bar: Bar, found: Found, missing: Mapping[str, Missing], accepted: Mapping[str, str]) -> Verdict:
    """Hold one bar against what was measured. What could not be measured is not passed over."""
    absent = [name for name in (bar.of, *bar.to) if name not in found]
    unexcused = [name for name in absent if name not in missing or missing[name].package not in accepted]
    if unexcused:
        why = "; ".join(f"{name}: {missing[name].why if name in missing else 'not there'}" for name in unexcused)
        return Verdict(bar, Status.NOT_MEASURED, why=why)
    there = [name for name in bar.to if name in found]
    if bar.of in absent or (bar.to and not there):
        return Verdict(bar, Status.ACCEPTED, why="; ".join(accepted[missing[name].package] for name in absent))
    if not there:
        value, unsure, rival = median(found[bar.of]), uncertainty(found[bar.of]), ""
    else:
        rival = min(there, key=lambda name: median(found[name]))
        compared = ratio(found[bar.of], found[rival])
        value, unsure = compared.value, compared.uncertainty
    kept = value <= bar.bar if bar.at_most else value >= bar.bar
    return Verdict(bar, Status.MET if kept else Status.MISSED, value, unsure, rival)


def settled(bars: Iterable[Bar], found: Found) -> bool:
    """Whether all ratios that these bars are about are certain enough, so that more rounds would tell nothing new."""
    for bar in bars:
        there = [name for name in bar.to if name in found]
        if bar.of not in found or not there:
            continue
        rival = min(there, key=lambda name: median(found[name]))
        if ratio(found[bar.of], found[rival]).uncertainty > CERTAIN:
            return False
    return True
