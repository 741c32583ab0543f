"""The thread that refreshes values once a second."""

from __future__ import annotations

import logging
import threading

import pytest

from resilience.prometheus import _refresher
from resilience.prometheus._refresher import Refresher
from tests.support.threads import wait_until

pytestmark = pytest.mark.usefixtures("nothing_logged_yet")


@pytest.fixture
def calls() -> list[float]:
    return []


def test_it_calls_at_once_and_when_something_has_changed(calls: list[float]) -> None:
    refresher = Refresher(lambda: calls.append(0.0))
    assert not refresher.running
    refresher.start()
    refresher.start()
    wait_until(lambda: len(calls) == 1)
    refresher.changed()
    wait_until(lambda: len(calls) == 2)
    refresher.stop()

    assert refresher.running
    wait_until(lambda: not any(one.name == "resilience-metrics" for one in threading.enumerate()))


@pytest.mark.slow
def test_it_calls_again_and_again(calls: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refresher, "INTERVAL", 0.01)
    refresher = Refresher(lambda: calls.append(0.0))
    refresher.start()
    wait_until(lambda: len(calls) >= 3)
    refresher.stop()


def test_an_error_is_logged_once_and_it_goes_on(calls: list[float], caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        calls.append(0.0)
        raise ZeroDivisionError

    refresher = Refresher(broken)
    refresher.start()
    for number in (1, 2, 3):
        wait_until(lambda number=number: len(calls) == number)  # type: ignore[misc]
        refresher.changed()
    refresher.stop()

    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1


def test_after_a_stop_it_does_not_start(calls: list[float]) -> None:
    refresher = Refresher(lambda: calls.append(0.0))
    refresher.stop()
    refresher.start()

    assert not refresher.running
    assert calls == []


def test_where_no_thread_can_be_started_the_next_call_tries_again(
    calls: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    refresher = Refresher(lambda: calls.append(0.0))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        refresher.start()
        assert not refresher.running
    refresher.start()
    wait_until(lambda: len(calls) == 1)
    refresher.stop()
