"""The numbers of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from resilience._demo.records import Arrival, CallRecord
from resilience._demo.script import Arm, Phase, ServiceName, Span
from resilience._demo.summary import NEVER, Summary, percentile, recovery, shortfalls, summaries
from tests.demo import made

AGAIN = Span(Phase(name="healthy again", seconds=3.0), 10.0, 13.0)


def call(due: float, *, served: bool) -> CallRecord:
    return CallRecord(ServiceName.HTTP, Arm.BARE, Arrival(0, due, order=False), "healthy again", served, 0.1)


def test_the_numbers_of_each_arm() -> None:
    found = summaries(made.result())

    assert [one.arm for one in found.values()] == list(Arm)
    assert found[Arm.TENACITY] == Summary(
        arm=Arm.TENACITY, calls=40, served=22, attempts=40, load=56, no_after=0.5, recovered=0.0, doubled=6
    )


def test_a_service_of_the_user_does_not_tell_what_it_saw() -> None:
    found = summaries(made.result(own=True))[Arm.STANDARD]

    assert (found.load, found.doubled, found.recovered) == (None, None, None)
    assert (found.attempts, found.served) == (40, 24)


@pytest.mark.parametrize(
    ("failed", "expected"),
    [([], 0.0), ([9.9], 0.0), ([10.2], 0.5), ([10.2, 11.7], 2.0), ([12.9], NEVER)],
)
def test_recovery_is_the_end_of_the_last_bad_half_second(failed: list[float], expected: float) -> None:
    good = [call(10.0 + at / 4 + 0.01, served=True) for at in range(12)]

    assert recovery([*good, *(call(due, served=False) for due in failed)], AGAIN) == expected


def test_one_failure_among_many_calls_is_no_bad_half_second() -> None:
    calls = [call(10.0 + at / 40, served=at != 3) for at in range(120)]

    assert recovery(calls, AGAIN) == 0.0


def test_a_percentile_is_one_of_the_numbers() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.5, 0.51, 0.99)] == [1.0, 2.0, 3.0, 4.0]


def test_a_good_run_has_no_shortfalls() -> None:
    assert shortfalls(summaries(made.result())) == []


@pytest.mark.parametrize(
    ("worse", "expected"),
    [
        (lambda one: replace(one, served=21), ["served 21 calls, tenacity 22"]),
        (lambda one: replace(one, load=20), ["put a load of 20 on the sick services, bare 20"]),
        (lambda one: replace(one, recovered=5.5), ["recovered after 5.5 s"]),
        (lambda one: replace(one, recovered=NEVER), ["recovered after inf s"]),
        (lambda one: replace(one, doubled=1), ["doubled 1 orders"]),
    ],
)
def test_each_shortfall_is_found(worse: Callable[[Summary], Summary], expected: list[str]) -> None:
    found = summaries(made.result())
    found[Arm.STANDARD] = worse(found[Arm.STANDARD])

    assert shortfalls(found) == expected
