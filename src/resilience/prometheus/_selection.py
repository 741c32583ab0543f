"""The pipelines that are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from resilience import Pipeline, Policy, Subscription, subscribe
from resilience._call.call import PipelineInfo
from resilience._pipeline.engine import engines
from resilience._util.locks import members
from resilience.events import Event


class Selection:
    """The pipelines that are measured: given ones, which it keeps none of alive, or all that have a name.

    Args:
        pipelines: the pipelines; None for all.

    Raises:
        TypeError: one of `pipelines` is not a pipeline.
        ValueError: one of them has no name.
    """

    def __init__(self, pipelines: Iterable[Pipeline[Any]] | None) -> None:
        if isinstance(pipelines, Policy | str):
            raise TypeError(f"pipelines must be an iterable of pipelines, or None for all of them, not {pipelines!r}")
        self._given: WeakSet[PipelineInfo] | None = None
        # A subscription keeps the state of its pipeline alive.
        self._subscriptions: WeakKeyDictionary[object, Subscription] = WeakKeyDictionary()
        self._pipelines: WeakSet[Pipeline[Any]] = WeakSet()
        if pipelines is None:
            return
        found: tuple[Any, ...] = tuple(pipelines)
        for pipeline in found:
            if not isinstance(pipeline, Pipeline):
                raise TypeError(f"pipelines must contain pipelines, not {pipeline!r}")
            if not pipeline.name:
                raise ValueError("a pipeline without a name cannot be measured; make it with name=")
        self._given = WeakSet(pipeline.engine.info for pipeline in found)
        self._pipelines.update(found)

    def includes(self, info: PipelineInfo) -> bool:
        """Return whether a pipeline is measured."""
        return bool(info.name) if self._given is None else info in self._given

    def live(self) -> list[PipelineInfo]:
        """Return the pipelines that are measured and exist."""
        if self._given is not None:
            return members(self._given)
        return [engine.info for engine in engines() if engine.info.name]

    def subscribe(self, listener: Callable[[Any], object], events: Iterable[type[Event]]) -> None:
        """Subscribe to events of the pipelines; to be called once."""
        if self._given is None:
            self._subscriptions[self] = subscribe(listener, events=events)
        for pipeline in members(self._pipelines):
            self._subscriptions[pipeline] = pipeline.subscribe(listener, events=events)

    def unsubscribe(self) -> None:
        """Undo `subscribe`."""
        for unsubscribe in members(self._subscriptions.values()):
            unsubscribe()
        self._subscriptions.clear()
