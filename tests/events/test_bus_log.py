"""What a bus asks of the log before an event is built, and that other listeners get every event all the same."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from resilience import BulkheadFullError, CircuitOpenError, Pipeline, Retry, backoff, subscribe
from resilience._call.call import PipelineInfo
from resilience._util.clock import clock
from resilience.events import CallEnded, Event, Rejected, RetryGivenUp, RetryScheduled
from resilience.events._bus import Bus, Subscription, Topic, forget_log_lines
from resilience.testing import Recorder, VirtualClock
from tests.support.functions import down
from tests.support.threads import in_threads

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = pytest.mark.filterwarnings("ignore:there are two pipelines")

THREADS = 8
ROUNDS = 500


class Owner:
    def recompose(self) -> None: ...


@pytest.fixture
def bus() -> Bus:
    made = Bus(Owner())
    made.open()
    return made


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[type[Event]]:
    """The types of the events that policies have built."""
    types: list[type[Event]] = []
    publish_to: Callable[..., None] = PipelineInfo.publish_to

    def noting(self: PipelineInfo, wanting: Any, kind: type[Event], *args: Any, **facts: Any) -> None:
        types.append(kind)
        publish_to(self, wanting, kind, *args, **facts)

    monkeypatch.setattr(PipelineInfo, "publish_to", noting)
    return types


def giving_up(pipeline: Pipeline[Any], calls: int) -> None:
    for _ in range(calls):
        with pytest.raises(ConnectionError):
            pipeline.call(down)


def test_an_event_that_is_held_back_is_not_built(virtual_clock: VirtualClock, built: list[type[Event]]) -> None:
    giving_up(Pipeline(Retry(2, wait=backoff.none()), budget=None), 100)

    assert built == [RetryGivenUp]


def test_an_event_below_the_level_is_not_built_and_not_counted(
    virtual_clock: VirtualClock, built: list[type[Event]], caplog: pytest.LogCaptureFixture
) -> None:
    pipeline: Pipeline[Any] = Pipeline(Retry(2, wait=backoff.none()), budget=None)
    with caplog.at_level(logging.ERROR, "resilience"):
        giving_up(pipeline, 100)
        assert built == []
    with caplog.at_level(logging.WARNING, "resilience"):
        giving_up(pipeline, 1)

    (record,) = caplog.records
    assert vars(record)["resilience_held_back"] == 0


def test_a_listener_gets_the_events_that_the_log_holds_back(virtual_clock: VirtualClock) -> None:
    pipeline: Pipeline[Any] = Pipeline(Retry(2, wait=backoff.none()), budget=None)
    with Recorder(pipeline, events=[RetryGivenUp]) as here, Recorder(events=[RetryGivenUp]) as everywhere:
        giving_up(pipeline, 20)

    assert (len(here.events), len(everywhere.events)) == (20, 20)


def test_a_listener_that_subscribes_later_gets_events_too(virtual_clock: VirtualClock) -> None:
    pipeline: Pipeline[Any] = Pipeline(Retry(2, wait=backoff.none()), budget=None)
    giving_up(pipeline, 1)
    with Recorder(pipeline, events=[RetryGivenUp]) as recorder:
        giving_up(pipeline, 2)
    giving_up(pipeline, 1)

    assert len(recorder.events) == 2


def test_subscribing_does_not_let_another_line_through(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline: Pipeline[Any] = Pipeline(Retry(2, wait=backoff.none()), budget=None)
    giving_up(pipeline, 3)
    with Recorder(pipeline):
        giving_up(pipeline, 3)
    virtual_clock.advance(10)
    giving_up(pipeline, 1)

    assert [vars(record)["resilience_held_back"] for record in caplog.records] == [0, 5]


def test_events_of_one_type_with_different_keys_have_lines_of_their_own(virtual_clock: VirtualClock, bus: Bus) -> None:
    def asked(key: object) -> int:
        return len(bus.listeners_for(Rejected, key))

    assert [asked(CircuitOpenError), asked(CircuitOpenError)] == [1, 0]
    assert [asked(BulkheadFullError), asked(BulkheadFullError)] == [1, 0]


def test_what_is_not_logged_has_no_line(bus: Bus) -> None:
    assert list(bus.listeners_for(CallEnded)) == []


def test_the_lines_of_a_pipeline_go_with_it(virtual_clock: VirtualClock) -> None:
    pipeline: Pipeline[Any] = Pipeline(Retry(2, wait=backoff.none()), budget=None)
    giving_up(pipeline, 2)
    topic = weakref.ref(pipeline._engine.info.bus)
    del pipeline
    gc.collect()

    assert topic() is None


def test_forgotten_lines_are_logged_again(virtual_clock: VirtualClock, bus: Bus) -> None:
    def asked() -> Sequence[Subscription]:
        return bus.listeners_for(RetryGivenUp)

    assert [len(asked()), len(asked())] == [1, 0]
    forget_log_lines()

    assert [len(asked()), len(asked())] == [1, 0]


@pytest.mark.usefixtures("frequent_switches")
def test_no_listener_is_lost_when_threads_subscribe_while_events_come(bus: Bus) -> None:
    """Whoever has subscribed is asked from then on, and whoever has unsubscribed is not."""

    def work(index: int) -> list[str]:
        wrong: list[str] = []
        listener: list[Any] = []
        for number in range(ROUNDS // 5):
            if number % 10 == 0:
                forget_log_lines()
            subscription = (bus.add if index % 2 else subscribe)(listener.append, events=[RetryScheduled])
            if subscription not in bus.listeners_for(RetryScheduled):
                wrong.append("lost")
            subscription()
            if subscription in bus.listeners_for(RetryScheduled):
                wrong.append("kept")
        return wrong

    assert [wrong for each in in_threads(THREADS, work) for wrong in each] == []


def test_a_topic_has_its_listeners_from_the_moment_on_at_which_it_is_found(bus: Bus) -> None:
    """Another thread subscribes as a topic is made, and a third one publishes at once."""
    missing: list[bool] = []

    class Topics(dict[object, Any]):
        def setdefault(self, key: object, topic: Any = None) -> Any:
            bus.add(print)
            found = super().setdefault(key, topic)
            missing.extend(one not in found.listeners for one in bus.all)
            return found

    bus.topics = Topics()
    bus.listeners_for(RetryScheduled)

    assert not any(missing)
    assert list(bus.listeners_for(RetryScheduled)) == list(bus.all)
    assert len(bus.all) == 1


class Interrupting(Subscription):
    """A subscription; when it is first asked what it wants, another one is added, as a thread might do then."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus, print, (Event,), None)
        self.bus = bus
        self.added: list[Subscription] = []

    def wants(self, kind: type[Event]) -> bool:
        if not self.added:
            self.added.append(self)
            self.added.append(self.bus.add(print))
        return True


def test_a_subscription_that_comes_while_listeners_are_updated_is_not_lost(
    virtual_clock: VirtualClock, bus: Bus
) -> None:
    bus.listeners_for(RetryScheduled)
    first = Interrupting(bus)
    bus.all = (first,)
    bus.changed()

    assert list(bus.listeners_for(RetryScheduled)) == first.added


class Interrupted(dict[object, Topic]):
    """The topics of a bus to which a subscription is added just before a topic is."""

    def __init__(self, bus: Bus) -> None:
        super().__init__()
        self.bus = bus

    def setdefault(self, key: object, topic: Any = None) -> Any:
        self.bus.add(print)
        return super().setdefault(key, topic)


def test_a_subscription_is_not_lost_that_comes_before_a_topic(virtual_clock: VirtualClock, bus: Bus) -> None:
    bus.topics = Interrupted(bus)

    assert list(bus.listeners_for(RetryScheduled)) == list(bus.all) != []


def test_the_time_is_that_of_the_library(virtual_clock: VirtualClock, bus: Bus) -> None:
    bus.listeners_for(RetryGivenUp)

    assert bus.topics[RetryGivenUp].since == clock.monotonic() == virtual_clock.monotonic()
