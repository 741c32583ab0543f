"""Events as a list, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from resilience import Pipeline
from resilience.events import Event, Subscription, subscribe

EventT = TypeVar("EventT", bound=Event)


class Recorder:
    """Records events in a list while its block runs.

    Args:
        pipeline: whose events; None for those of all pipelines.
        events: the event types wanted; none given means all.
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
        """Return the recorded events of one type, those of derived types included."""
        return [event for event in self.events if isinstance(event, kind)]
