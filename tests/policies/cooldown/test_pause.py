"""The pause: how the waiting calls are spread, and for which share of the last minute it was closed."""

from __future__ import annotations

import statistics

import pytest

from resilience._call.wait_queue import Ticket
from resilience._policies.cooldown.pause import CooldownTicket, Pause
from resilience.testing import VirtualClock, seeded
from tests.policies.cooldown.helpers import LONG


def crowd(pause: Pause, clock: VirtualClock, calls: int) -> list[CooldownTicket]:
    woken: list[Ticket] = []
    tickets = [pause.join(clock.monotonic(), clock.monotonic() + LONG, woken) for _ in range(calls)]
    assert woken == [ticket for ticket in woken if ticket is tickets[0]]
    return tickets


def served(pause: Pause, clock: VirtualClock) -> list[float]:
    """Let the first look whenever it wants to, until all have gone; return when they went, from the first hint on."""
    went: list[float] = []
    while pause.queue.waiting:
        first = next(iter(pause.queue.waiting))
        clock.advance(max(0.0, first.check_at - clock.monotonic()))
        if first.acquire():
            went.append(clock.elapsed)
    return went


def test_the_waiting_go_as_so_many_uniform_times_in_order_would(clock: VirtualClock) -> None:
    means: list[list[float]] = []
    for _ in range(300):
        pause = Pause()
        start = clock.elapsed
        pause.extend(clock.monotonic(), 10.0, 0.5)
        crowd(pause, clock, 4)
        went = [at - start for at in served(pause, clock)]
        assert all(10.0 <= at <= 15.0 for at in went)
        assert went == sorted(went)
        means.append(went)

    for number, times in enumerate(zip(*means, strict=True), start=1):  # the k-th of m: k / (m + 1)
        assert statistics.fmean(times) == pytest.approx(10.0 + 5.0 * number / 5, abs=0.25)


def test_without_spread_all_go_at_the_end_of_the_pause(clock: VirtualClock) -> None:
    pause = Pause()
    pause.extend(clock.monotonic(), 10.0, 0.0)
    crowd(pause, clock, 5)

    assert served(pause, clock) == [10.0]
    assert not pause.holds(clock.monotonic())


def test_the_times_are_drawn_when_the_pause_is_over(clock: VirtualClock) -> None:
    """With the first one's drawn while it waits alone, those behind it would share what is left after it."""
    first: list[float] = []
    for _ in range(100):
        pause = Pause()
        start = clock.elapsed
        pause.extend(clock.monotonic(), 10.0, 1.0)
        crowd(pause, clock, 50)
        first.append(served(pause, clock)[0] - start)

    assert statistics.fmean(first) == pytest.approx(10.0 + 10.0 / 51, abs=0.2)


def test_who_leaves_moves_the_others_forward_but_not_into_the_past(clock: VirtualClock) -> None:
    pause = Pause()
    pause.extend(clock.monotonic(), 10.0, 1.0)
    tickets = crowd(pause, clock, 50)
    clock.advance(15.0)  # nobody looked meanwhile
    tickets[0].leave()

    went = served(pause, clock)
    assert len(went) == 49
    assert went[0] > 15.0
    assert 19.0 < went[-1] <= 20.0
    assert len(set(went)) == 49


def test_a_first_one_that_is_lost_stops_nobody(clock: VirtualClock) -> None:
    pause = Pause()
    pause.extend(clock.monotonic(), 10.0, 0.5)
    _, *others = crowd(pause, clock, 3)
    assert {ticket.check_at - clock.monotonic() for ticket in others} == {15.0}
    clock.advance(15.0)

    assert [ticket.acquire() for ticket in others] == [True, True]


def test_nobody_looks_all_the_time(clock: VirtualClock) -> None:
    """Whoever looked, and may not go, looks again later, however often the pause was extended."""
    with seeded(3):
        pause = Pause()
        pause.extend(clock.monotonic(), 1.0, 0.5)
        tickets = crowd(pause, clock, 5)
        for seconds in (1.0, 0.3, 2.0, 0.1):
            pause.extend(clock.monotonic(), seconds, 0.5)
            for _ in range(100):
                waiting = [ticket for ticket in tickets if ticket in pause.queue.waiting]
                if not waiting:
                    break
                clock.advance(0.05)
                for ticket in waiting:
                    ticket.acquire()
                    assert ticket not in pause.queue.waiting or ticket.check_at > clock.monotonic()


def test_a_shorter_pause_later_does_not_press_those_who_wait_into_its_spread(clock: VirtualClock) -> None:
    pause = Pause()
    pause.extend(clock.monotonic(), 10.0, 1.0)
    crowd(pause, clock, 100)
    clock.advance(12.0)
    assert pause.extend(clock.monotonic(), 1.0, 1.0)

    went = served(pause, clock)
    assert 13.0 <= went[0] < 14.0
    assert 19.0 <= went[-1] <= 20.0


def test_the_share_of_the_last_minute(clock: VirtualClock) -> None:
    pause = Pause()

    def share() -> float:
        return round(pause.closed_share(clock.monotonic()), 6)

    pause.extend(clock.monotonic(), 30.0, 0.0)
    assert share() == 0.0
    clock.advance(15.0)
    assert share() == 0.25
    clock.advance(25.0)
    assert share() == 0.5
    pause.extend(clock.monotonic(), 10.0, 0.0)  # at 40
    clock.advance(10.0)
    assert share() == 0.666667
    clock.advance(25.0)  # at 75: of the first pause, 15 s are left
    assert share() == round(25 / 60, 6)
    pause.extend(clock.monotonic(), 60.0, 0.0)
    clock.advance(60.0)
    assert share() == 1.0
    clock.advance(60.0)
    assert share() == 0.0


def test_many_short_pauses_take_little_memory_and_are_counted(clock: VirtualClock) -> None:
    pause = Pause()
    for _ in range(10_000):
        pause.extend(clock.monotonic(), 0.01, 0.0)
        clock.advance(0.02)

    assert pause.closed_share(clock.monotonic()) == pytest.approx(0.5, abs=0.01)
    assert len(pause._closed_spans) <= 60
