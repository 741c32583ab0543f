"""The workers of a service: they take turns, and count what arrives and what is done."""

from __future__ import annotations

import pytest

from resilience._demo.script import DAY, Arm
from resilience._demo.workers import Workers

BROWNOUT, UNAVAILABLE, RESETS, DEAD = DAY[1:5]


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def workers(time: Time) -> Workers:
    return Workers("http", 7, time)


def test_workers_take_turns_and_the_rest_waits(workers: Workers) -> None:
    workers.enter(BROWNOUT)
    waits = [workers.arrive(Arm.BARE, number).wait for number in range(2 * BROWNOUT.workers)]

    least, most = BROWNOUT.work
    assert all(least <= wait <= most for wait in waits[: BROWNOUT.workers])
    assert all(2 * least <= wait <= 2 * most for wait in waits[BROWNOUT.workers :])
    assert workers.arrive(Arm.STANDARD, 0).wait <= most  # has workers of its own


def test_what_finds_no_worker_and_no_place_in_the_queue_is_refused(workers: Workers, time: Time) -> None:
    workers.enter(UNAVAILABLE)
    verdicts = [workers.arrive(Arm.BARE, number) for number in range(UNAVAILABLE.workers + 1)]
    time.now += UNAVAILABLE.work[1]

    assert [one.refused for one in verdicts] == [False] * UNAVAILABLE.workers + [True]
    assert not workers.arrive(Arm.BARE, 99).refused


def test_a_full_queue_refuses_until_one_has_begun(workers: Workers, time: Time) -> None:
    workers.enter(BROWNOUT)
    room = BROWNOUT.workers + BROWNOUT.queue
    assert not any(workers.arrive(Arm.BARE, number).refused for number in range(room))
    assert workers.arrive(Arm.BARE, room).refused
    time.now += BROWNOUT.work[1]
    assert not workers.arrive(Arm.BARE, room + 1).refused


def test_a_call_meets_the_same_in_each_arm(workers: Workers) -> None:
    workers.enter(RESETS)
    bare, tenacity = ([workers.arrive(arm, number) for number in range(15)] for arm in (Arm.BARE, Arm.TENACITY))

    assert bare == tenacity
    assert any(one.reset for one in bare)
    assert not all(one.reset for one in bare)
    assert workers.arrive(Arm.TENACITY, 3) != tenacity[3]  # its second attempt


def test_other_seeds_bring_other_times() -> None:
    one, other = (Workers("http", seed, Time()).arrive(Arm.BARE, 1).wait for seed in (1, 2))

    assert one != other


def test_work_of_a_service_that_died_is_lost_and_its_queue_with_it(workers: Workers) -> None:
    workers.enter(BROWNOUT)
    verdicts = [workers.arrive(Arm.BARE, number) for number in range(50)]
    workers.enter(DEAD)
    workers.count(Arm.BARE)
    workers.enter(BROWNOUT)

    assert not workers.finish(Arm.BARE, 0, verdicts[0], order=True)
    assert workers.arrive(Arm.BARE, 50).wait <= BROWNOUT.work[1]
    report = workers.report()["bare"]
    assert report["phases"] == {"brownout": 51, "dead": 1}
    assert (report["orders"], report["doubled"]) == (0, 0)


def test_an_order_that_is_carried_out_again_is_counted(workers: Workers, time: Time) -> None:
    workers.begin()
    for number in (1, 2, 2, 2):
        verdict = workers.arrive(Arm.TENACITY, number)
        time.now += 0.6
        assert workers.finish(Arm.TENACITY, number, verdict, order=True)
    assert workers.finish(Arm.TENACITY, 9, workers.arrive(Arm.TENACITY, 9), order=False)

    report = workers.report()["tenacity"]
    assert (report["orders"], report["doubled"]) == (4, 1)
    assert report["bins"] == {"0": 1, "1": 1, "2": 1, "3": 1, "4": 1}
