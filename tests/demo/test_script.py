"""The script of the day."""

from __future__ import annotations

import itertools

import pytest

from resilience._demo.script import DAY, QUICK_DAY, RATE, Phase, span_at, spans


@pytest.mark.parametrize("day", [DAY, QUICK_DAY])
def test_the_day_has_the_phases_that_it_is_about(day: tuple[Phase, ...]) -> None:
    assert [phase.name for phase in day] == ["healthy", "brownout", "503s", "resets", "dead", "healthy again"]
    assert [phase.name for phase in day if not phase.sick] == ["healthy", "healthy again"]
    assert [phase.name for phase in day if not phase.alive] == ["dead"]
    assert [phase.name for phase in day if phase.capacity < RATE] == ["brownout", "503s"]


@pytest.mark.parametrize(("phases", "longest"), [(DAY, 38.0), (QUICK_DAY, 11.0)])
def test_the_day_leaves_time_to_start_and_to_end(phases: tuple[Phase, ...], longest: float) -> None:
    day = spans(phases)

    assert day[-1].end <= longest
    assert day[0].start == 0.0
    assert all(before.end == after.start for before, after in itertools.pairwise(day))


def test_a_day_can_be_scaled_and_a_time_lies_in_one_phase() -> None:
    day = spans(DAY, scale=0.5)

    assert day[-1].end == spans(DAY)[-1].end / 2
    assert span_at(day, 0.0) is day[0]
    assert span_at(day, day[0].end) is day[1]
    assert span_at(day, day[-1].end + 1.0) is day[-1]


def test_each_phase_is_described() -> None:
    assert [phase.words for phase in DAY] == [phase.words for phase in QUICK_DAY]
    assert [phase.words for phase in DAY] == [
        "answers in 10 ms",
        "can do 20 of 25 calls a second, the rest waits",
        "can do 20 of 25 calls a second, 503 for the rest",
        "answers in 10 ms, 20% of the answers are lost to a reset",
        "each connection is reset at once",
        "answers in 10 ms",
    ]
    assert Phase(name="own", seconds=1.0, note="as it is").words == "as it is"
