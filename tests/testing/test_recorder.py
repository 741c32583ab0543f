"""A Recorder: whose events it records, which, and how they are looked up by type."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import Pipeline, Retry, backoff
from resilience.events import AttemptEnded, CallEnded, Event, RetryScheduled
from resilience.testing import Recorder
from tests.support.functions import Flaky

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")


def retrying() -> Pipeline:
    return Pipeline(Retry(2, wait=backoff.none()))


def test_a_recorder_is_checked() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="pipeline must be"):
        Recorder(wrong)


def test_events_are_looked_up_by_their_type() -> None:
    pipeline = retrying()
    with Recorder(pipeline) as recorder:
        pipeline.call(Flaky())

    (scheduled,) = recorder.of(RetryScheduled)
    assert (scheduled.attempt, scheduled.wait) == (1, 0.0)
    assert [event.outcome for event in recorder.of(AttemptEnded)] == ["failed", "ok"]
    assert recorder.of(Event) == recorder.events
    assert [type(event) for event in recorder.events] == [AttemptEnded, RetryScheduled, AttemptEnded, CallEnded]


def test_what_is_looked_up_is_a_list_of_its_own() -> None:
    pipeline = retrying()
    with Recorder(pipeline) as recorder:
        pipeline.call(int)
        recorder.of(CallEnded).clear()

    assert len(recorder.of(CallEnded)) == 1


def test_only_the_events_that_are_wanted_are_recorded() -> None:
    pipeline, other = retrying(), retrying()
    with Recorder(pipeline, events=[CallEnded]) as recorder, Recorder(events=[RetryScheduled]) as everywhere:
        pipeline.call(Flaky())
        other.call(Flaky())
    pipeline.call(int)

    assert [type(event) for event in recorder.events] == [CallEnded]
    assert len(everywhere.of(RetryScheduled)) == 2
