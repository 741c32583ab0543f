"""Whether `standard` is better in several runs."""

from __future__ import annotations

import asyncio

import pytest

from resilience._demo.records import CallRecord
from resilience._demo.run import Result
from resilience._demo.script import Arm
from resilience._demo.verify import verify
from tests.demo import made


def runs(*, behind: int = 0, doubled: int = 0) -> tuple[bool, list[str]]:
    """Verify five runs; in so many of them `standard` serves few calls, or doubles an order."""
    lines: list[str] = []

    async def run(seed: int) -> Result:
        result = made.result()
        if seed <= behind:
            result.records.calls[:] = [
                CallRecord(call.service, call.arm, call.arrival, call.phase, call.arm is not Arm.STANDARD, call.seconds)
                for call in result.records.calls
            ]
        if seed <= doubled:
            for report in result.seen.values():
                report[Arm.STANDARD]["doubled"] = 1
        return result

    return asyncio.run(verify(run, range(1, 6), lines.append)), lines


def test_good_runs_pass() -> None:
    passed, lines = runs()

    assert passed
    assert lines[0] == (
        "seed 1: bare served 20 of 40, load 20, recovered after 0.0 s, 0 orders twice; tenacity served 22 of 40, load "
        "56, recovered after 0.0 s, 6 orders twice; standard served 24 of 40, load 12, recovered after 0.0 s, 0 orders "
        "twice"
    )
    assert lines[-2:] == [
        "standard served at least as many calls as each other arm in 5 of 5 runs; it needs 4.",
        "Other shortfalls (load, recovery, doubled orders): none.",
    ]


def test_a_run_on_a_busy_machine_is_not_counted_twice_at_most() -> None:
    lines: list[str] = []
    runs: list[int] = []

    async def run(seed: int) -> Result:
        runs.append(seed)
        result = made.result()
        result.records.lag = 1.5 if seed == 1 or len(runs) == 4 else 0.9
        return result

    assert asyncio.run(verify(run, [1, 2], lines.append))
    assert runs == [1, 1, 1, 2, 2]
    assert [line for line in lines if "not counted" in line] == [
        f"seed {seed}: not counted, the machine was busy: calls were made up to 1.5 s late" for seed in (1, 1, 2)
    ]


@pytest.mark.parametrize("doubled", [1, 5])
def test_a_doubled_order_in_any_run_fails(doubled: int) -> None:
    passed, lines = runs(doubled=doubled)

    assert not passed
    assert "  standard doubled 2 orders" in lines


def test_too_few_calls_served_in_two_runs_fail() -> None:
    passed, lines = runs(behind=2)

    assert not passed
    assert "  standard served 0 calls, tenacity 40" in lines
    assert any("recovered after inf s" in line for line in lines)
    assert lines[-2].startswith("standard served at least as many calls as each other arm in 3 of 5 runs")
