"""The bell of races in trio: a ring is never missed."""

from __future__ import annotations

from resilience._runtime.trio_race import _Bell


def test_a_ring_wakes_the_one_that_waits_once() -> None:
    bell = _Bell()
    woken: list[int] = []

    assert bell.add_waker(lambda: woken.append(1))
    bell.ring()

    assert woken == [1]


def test_a_ring_while_nobody_waits_ends_the_next_wait_at_once() -> None:
    bell = _Bell()
    bell.ring()

    assert not bell.add_waker(lambda: None)
