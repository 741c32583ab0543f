"""Listeners: what they may be, when they are asked, and what happens to what they raise."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from resilience import Pipeline, Retry, subscribe
from resilience.events import AttemptEnded, CallEnded, Event, RetryScheduled
from resilience.testing import VirtualClock
from tests.support.functions import Flaky, down
from tests.support.policies import Stale, retrying

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = [
    pytest.mark.usefixtures("nothing_logged_yet"),
    pytest.mark.filterwarnings("ignore:there are two pipelines"),
]


class TestListening:
    def test_subscribe_and_unsubscribe(self) -> None:
        pipeline, other = retrying(), retrying()
        here: list[Event] = []
        everywhere: list[Event] = []
        subscription = pipeline.subscribe(here.append, events=[CallEnded])
        with subscribe(everywhere.append, events=[CallEnded]):
            pipeline.call(int)
            other.call(int)
        assert (len(here), len(everywhere)) == (1, 2)
        subscription()
        subscription()
        pipeline.call(int)
        assert (len(here), len(everywhere)) == (1, 2)

    def test_when(self) -> None:
        heard: list[Event] = []
        pipeline = retrying()
        interested = False
        with pipeline.subscribe(heard.append, when=lambda: interested):
            pipeline.call(Flaky())
            assert heard == []
            interested = True
            pipeline.call(Flaky())
        assert [type(event) for event in heard] == [AttemptEnded, RetryScheduled, AttemptEnded, CallEnded]

    def test_errors_of_listeners(self, caplog: pytest.LogCaptureFixture) -> None:
        pipeline = retrying()
        heard: list[Event] = []

        def broken_listener(event: Event) -> None:
            raise ZeroDivisionError

        with pipeline.subscribe(broken_listener), pipeline.subscribe(heard.append):
            pipeline.call(Flaky())
        assert len(heard) == 4
        assert sum("broken_listener" in line.message for line in caplog.records if line.levelno == logging.ERROR) == 1

    def test_wrong(self) -> None:
        async def listener(event: Event) -> None:
            pass

        wrong: Any
        for wrong in (listener, 5):
            with pytest.raises(TypeError, match="listener"):
                retrying().subscribe(wrong)
        for wrong in (int, "CallEnded"):
            with pytest.raises(TypeError, match="event types"):
                retrying().subscribe(print, events=[wrong])


def broken() -> bool:
    raise RuntimeError("a bug in a hook")


def test_what_when_raises_never_reaches_the_call(virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline(Stale(), Retry(2))
    heard: list[Any] = []
    pipeline.subscribe(heard.append, when=broken)

    with caplog.at_level(logging.ERROR, "resilience"):
        assert pipeline.call(down) == "stale"

    assert heard == []
    assert len(caplog.records) == 1
    assert "when= of a listener" in caplog.text


class AsyncListener:
    async def __call__(self, event: Any) -> None: ...


def test_a_subscription_is_checked() -> None:
    wrong: list[dict[str, Any]] = [
        {"listener": AsyncListener()},
        {"listener": print, "when": 42},
        {"listener": print, "events": CallEnded},
    ]
    for arguments in wrong:
        with pytest.raises(TypeError, match="must be"):
            subscribe(**arguments)
