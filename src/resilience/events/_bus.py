"""Who listens to the events of a pipeline, or of all.

No event object is built that nobody listens to. What a listener raises is logged once and never reaches the call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias
from weakref import WeakSet

from resilience._util.clock import clock
from resilience._util.finalizers import run_later
from resilience._util.locks import here, members, new_lock
from resilience._util.log_once import hook_failed
from resilience.events._types import Event

Listener: TypeAlias = "Callable[[Any], object]"


class Subscription:
    """A listener and what it wants. Call it, or leave it as a context manager, to unsubscribe."""

    __slots__ = ("_bus", "events", "listener", "when")

    def __init__(
        self, bus: _Subscribers, listener: Listener, events: tuple[type[Event], ...], when: Callable[[], bool] | None
    ) -> None:
        self._bus = bus
        self.listener = listener
        self.events = events
        self.when = when

    def __call__(self) -> None:
        """Unsubscribe; a second time does nothing."""
        self._bus.remove(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self()

    def wants(self, kind: type[Event]) -> bool:
        """Return whether events of this kind go to the listener."""
        return issubclass(kind, self.events)

    def interested(self) -> bool:
        """Return whether the listener wants events at this moment."""
        if self.when is None:
            return True
        try:
            return self.when()
        except Exception as error:
            hook_failed("when= of a listener", self.when, error)
            return False


_changes = new_lock()


class _Subscribers:
    """Some subscriptions; `changed` runs after each change."""

    __slots__ = ("all",)

    def __init__(self) -> None:
        self.all: tuple[Subscription, ...] = ()

    def add(
        self, listener: Listener, events: Iterable[type[Event]] = (), when: Callable[[], bool] | None = None
    ) -> Subscription:
        if isinstance(events, type):
            raise TypeError(f"events must be several event types, such as ({events.__name__},)")
        wanted = tuple(events) or (Event,)
        if not callable(listener) or any(
            inspect.iscoroutinefunction(one) for one in (listener, type(listener).__call__)
        ):
            raise TypeError(f"listener must be a plain callable that takes an event, not {listener!r}")
        if when is not None and not callable(when):
            raise TypeError(f"when must be a callable without parameters, or None, not {when!r}")
        given: tuple[Any, ...] = wanted
        for kind in given:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise TypeError(f"events must be event types such as RetryScheduled, not {kind!r}")
        subscription = Subscription(self, listener, wanted, when)
        with _changes:
            self.all = (*self.all, subscription)
        self.changed()
        return subscription

    def remove(self, subscription: Subscription) -> None:
        with _changes:
            self.all = tuple(one for one in self.all if one is not subscription)
        self.changed()

    def changed(self) -> None:
        """Nothing to do."""


class _Everywhere(_Subscribers):
    __slots__ = ("buses",)

    def __init__(self) -> None:
        super().__init__()
        self.buses: WeakSet[Bus] = WeakSet()

    def changed(self) -> None:
        for bus in members(self.buses):
            bus.changed()


everywhere = _Everywhere()
"""The listeners of all pipelines, now and later."""


class BusOwner(Protocol):
    """What composes a chain of policies; some events need a place in that."""

    def recompose(self) -> None:
        """Compose the chain anew, since listeners have come or gone."""


class Bus(_Subscribers):
    """The listeners of one pipeline.

    Args:
        owner: is told when listeners have come or gone.
    """

    __slots__ = ("__weakref__", "_table", "owner")

    def __init__(self, owner: BusOwner) -> None:
        super().__init__()
        self.owner = owner
        self._table: dict[type[Event], tuple[Subscription, ...]] = {}

    def open(self) -> None:
        """Take part in the subscriptions to all pipelines; called when the owner can be told."""
        everywhere.buses.add(self)

    def changed(self) -> None:
        """Forget the interests of the listeners, and tell the owner."""
        self._table = {}
        self.owner.recompose()

    def listeners_for(self, kind: type[Event]) -> Sequence[Subscription]:
        """Return the subscriptions that want an event of this kind at this moment."""
        table = self._table
        wanted = table.get(kind)
        if wanted is None:
            wanted = table[kind] = tuple(one for one in (*everywhere.all, *self.all) if one.wants(kind))
        if len(wanted) != 1:
            return tuple(one for one in wanted if one.interested())
        when = wanted[0].when  # the usual case: only the log; what `interested` does, without the call
        try:
            return wanted if when is None or when() else ()
        except Exception as error:
            hook_failed("when= of a listener", when, error)
            return ()

    def wants(self, kind: type[Event]) -> bool:
        """Return whether there is a listener for this kind, also one that is not interested at the moment."""
        return any(one.wants(kind) for one in (*everywhere.all, *self.all))

    def publish(self, kind: type[Event], **facts: Any) -> None:
        """Build an event, if anybody wants it, and hand it over."""
        if wanting := self.listeners_for(kind):
            deliver(kind(at=clock.monotonic(), **facts), wanting)


def deliver(event: Event, subscriptions: Iterable[Subscription]) -> None:
    """Hand an event over. A listener that fails does not keep it from the others."""
    if here.finalising:
        run_later(lambda: deliver(event, subscriptions))
        return
    for subscription in subscriptions:
        try:
            subscription.listener(event)
        except Exception as error:
            hook_failed("listener", subscription.listener, error)


def subscribe(
    listener: Listener, *, events: Iterable[type[Event]] = (), when: Callable[[], bool] | None = None
) -> Subscription:
    """Listen to every pipeline, also to those that are made later.

    Args:
        listener: called with each event, on the thread and in the task where it happened; it must be quick. What
            it raises is logged once.
        events: the event types that it wants; none given means all.
        when: asked before an event is built, perhaps more than once; False saves that work.

    Returns:
        A callable that unsubscribes, and a context manager that does so at its end.
    """
    return everywhere.add(listener, events, when)
