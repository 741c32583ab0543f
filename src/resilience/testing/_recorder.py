"""Recorder: events in a list, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from resilience import Pipeline
from resilience.events import Event, Subscription, subscribe

EventT = TypeVar("EventT", bound=Event)


class Recorder:
    """A context manager that records events in a list.

    Args:
        pipeline: the pipeline whose events to record; None for all pipelines.
        events: the event types to record, those of derived types included; empty for all types.

    Attributes:
        events: the recorded events, in the order in which they were published.

    Raises:
        TypeError: `pipeline` is not a Pipeline.
    """

    def __init__(self, pipeline: Pipeline[Any] | None = None, *, events: Iterable[type[Event]] = ()) -> None:
        given: Any = pipeline
        if not (given is None or isinstance(given, Pipeline)):
            raise TypeError(f"pipeline must be a Pipeline, or None for all of them, not {given!r}")
        self.events: list[Event] = []
        self._pipeline = pipeline
        self._kinds = tuple(events)
        self._subscription: Subscription | None = None

    def __enter__(self) -> Recorder:
        listen = subscribe if self._pipeline is None else self._pipeline.subscribe
        self._subscription = listen(self.events.append, events=self._kinds)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._subscription is not None:
            self._subscription()

    def of(self, kind: type[EventT]) -> list[EventT]:
        """Return the recorded events of a type, those of derived types included."""
        return [event for event in self.events if isinstance(event, kind)]
