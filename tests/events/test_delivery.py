"""The delivery of events: what listeners raise is counted by pipeline, and never comes out."""

from __future__ import annotations

import pytest

from resilience import Pipeline, Retry
from resilience._util.locks import thread_state
from resilience.events import CallEnded, Event
from resilience.events._delivery import deliver, listener_errors
from tests.support.fork import in_child
from tests.support.threads import in_threads

pytestmark = [
    pytest.mark.usefixtures("nothing_logged_yet"),
    pytest.mark.filterwarnings("ignore:there are two pipelines"),
]


def broken(event: Event) -> None:
    raise ZeroDivisionError


def errors_of(name: str) -> int:
    return listener_errors.totals().get(name, 0)


def test_errors_are_counted_by_the_name_of_the_pipeline() -> None:
    pipeline, other = Pipeline(name="with_broken_listener"), Pipeline(name="with_a_good_one")
    before = errors_of("with_broken_listener")
    with pipeline.subscribe(broken, events=[CallEnded]), other.subscribe(repr):
        pipeline.call(int)
        pipeline.call(int)
        other.call(int)

    assert errors_of("with_broken_listener") == before + 2
    assert errors_of("with_a_good_one") == 0


def test_a_keyboard_interrupt_in_a_listener_comes_out_and_is_no_error_of_it() -> None:
    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    pipeline = Pipeline(Retry(), name="interrupted_listener")
    with pipeline.subscribe(interrupted, events=[CallEnded]), pytest.raises(KeyboardInterrupt):
        pipeline.call(int)

    assert errors_of("interrupted_listener") == 0


@pytest.mark.usefixtures("frequent_switches")
def test_errors_in_threads_are_counted_exactly() -> None:
    pipeline = Pipeline(name="broken_in_threads")
    before = errors_of("broken_in_threads")

    with pipeline.subscribe(broken, events=[CallEnded]):
        in_threads(8, lambda index: [pipeline.call(int) for _ in range(100)])

    assert errors_of("broken_in_threads") == before + 800


def test_inside_a_finalizer_the_delivery_waits_for_the_next_call() -> None:
    heard: list[Event] = []
    pipeline = Pipeline(name="finalized")
    with pipeline.subscribe(heard.append, events=[CallEnded]) as subscription:
        event = Event(pipeline="finalized", policy="", operation="f", target=None, at=0.0)
        thread_state.finalizing = True
        try:
            deliver(event, [subscription])
        finally:
            thread_state.finalizing = False
        assert heard == []
        pipeline.call(int)

    assert heard[0] is event


def test_the_counts_are_usable_in_a_forked_child() -> None:
    pipeline = Pipeline(name="forked_listener")

    def child() -> str:
        before = errors_of("forked_listener")
        with pipeline.subscribe(broken, events=[CallEnded]):
            pipeline.call(int)
        return str(errors_of("forked_listener") - before)

    assert in_child(child) == "1"
