"""Cuts of work that blocks a thread: they fire once, at their deadline, and the thread that fires them ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from resilience._runtime.thread_timer import Cut, ThreadTimer
from resilience._util import log_once
from resilience._util.clock import FOREVER
from tests.grpc.servers import wait_until
from tests.support.timing import at_most

pytestmark = pytest.mark.slow


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadTimer]:
    """A timer of its own for all cuts."""
    timer = ThreadTimer()
    monkeypatch.setattr("resilience._runtime.thread_timer.timer", timer)
    yield timer
    assert wait_until(lambda: timer._thread is None)


class Fired:
    """What a cut calls."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self) -> None:
        self.at.append(time.monotonic())


@pytest.mark.usefixtures("timer")
def test_a_cut_fires_once_at_its_deadline() -> None:
    fired = Fired()
    cut = Cut(fired)
    due = time.monotonic() + 0.1
    cut.arm(due)
    assert wait_until(lambda: len(fired.at) == 1)
    assert 0.0 <= fired.at[0] - due <= at_most(0.0)
    assert (cut.fired, cut.at, cut.scheduled) == (True, FOREVER, FOREVER)
    cut.close()


@pytest.mark.usefixtures("timer")
@pytest.mark.parametrize("how", ["disarm", "close"])
def test_a_cut_that_is_disarmed_in_time_does_not_fire(how: str) -> None:
    fired, last = Fired(), Fired()
    cut, later = Cut(fired), Cut(last)
    cut.arm(time.monotonic() + 0.05)
    later.arm(time.monotonic() + 0.1)
    getattr(cut, how)()
    assert wait_until(lambda: len(last.at) == 1)
    assert (fired.at, cut.fired) == ([], False)


@pytest.mark.usefixtures("timer")
def test_a_cut_that_is_put_off_fires_at_the_later_time_and_one_that_is_brought_forward_at_the_earlier_one() -> None:
    first, second = Fired(), Fired()
    began = time.monotonic()
    put_off, brought_forward = Cut(first), Cut(second)
    put_off.arm(began + 0.05)
    put_off.arm(began + 0.25)
    brought_forward.arm(began + 10.0)
    brought_forward.arm(began + 0.1)
    assert wait_until(lambda: len(first.at) == len(second.at) == 1)
    assert 0.25 <= first.at[0] - began <= at_most(0.25)
    assert 0.1 <= second.at[0] - began <= at_most(0.1)


@pytest.mark.usefixtures("timer")
def test_a_cut_may_be_armed_again_and_again() -> None:
    fired = Fired()
    cut = Cut(fired)
    for number in range(1, 4):
        cut.arm(time.monotonic() + 0.01)
        assert wait_until(lambda number=number: len(fired.at) == number)  # type: ignore[misc]
    cut.close()


@pytest.mark.usefixtures("timer")
def test_an_action_that_raises_does_not_stop_the_timer(caplog: pytest.LogCaptureFixture) -> None:
    log_once.forget()
    fired = Fired()

    def broken() -> None:
        raise ValueError("mine")

    now = time.monotonic()
    Cut(broken).arm(now + 0.01)
    Cut(fired).arm(now + 0.02)
    assert wait_until(lambda: len(fired.at) == 1)
    assert "action at a deadline" in caplog.text


def test_the_thread_ends_when_the_last_cut_is_closed_and_another_one_is_started(timer: ThreadTimer) -> None:
    for _ in range(2):
        cuts = [Cut(Fired()) for _ in range(3)]
        for cut in cuts:
            cut.arm(time.monotonic() + 60.0)
        thread = timer._thread
        assert thread is not None
        assert thread.is_alive()
        for cut in cuts:
            cut.close()
        assert timer._due == []
        thread.join(5.0)
        assert not thread.is_alive()


@pytest.mark.usefixtures("timer")
def test_cuts_of_many_threads_all_fire() -> None:
    fired = Fired()

    def arm() -> None:
        for _ in range(50):
            cut, other = Cut(fired), Cut(fired)
            cut.arm(time.monotonic() + 0.01)
            other.arm(time.monotonic() + 0.001)
            other.close()

    threads = [threading.Thread(target=arm) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wait_until(lambda: len(fired.at) >= 200)
    assert len(fired.at) <= 400
