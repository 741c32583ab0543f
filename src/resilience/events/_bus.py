"""Subscriptions to the events of one pipeline, or of all pipelines.

An event object is built only if a listener wants it. An exception in a listener is logged once and does not affect the
call.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias
from weakref import WeakSet

from resilience._util.clock import clock
from resilience._util.finalizers import pending, put_off, run_pending
from resilience._util.locks import inside_state, members, state_lock
from resilience._util.log_once import hook_failed
from resilience._util.throttle import Throttle
from resilience.events._delivery import deliver
from resilience.events._types import Event

Listener: TypeAlias = "Callable[[Any], object]"
"""A callable that takes an event; its return value is ignored."""


class Subscription:
    """A listener and the events that it gets, as returned by `subscribe`.

    Call it to unsubscribe, or use it as a context manager that unsubscribes on exit.

    Attributes:
        listener: the callable that is called with each event.
        events: the event types that the listener gets, subclasses included.
        when: the condition that is evaluated before an event is built; None for no condition.
    """

    __slots__ = ("_bus", "events", "listener", "when")

    def __init__(
        self, bus: _Subscribers, listener: Listener, events: tuple[type[Event], ...], when: Callable[[], bool] | None
    ) -> None:
        self._bus = bus
        self.listener = listener
        self.events = events
        self.when = when

    def __call__(self) -> None:
        """Unsubscribe. Later calls do nothing."""
        self._bus.remove(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self()

    def wants(self, kind: type[Event]) -> bool:
        """Return whether the listener gets events of type `kind`."""
        return issubclass(kind, self.events)

    def interested(self) -> bool:
        """Return whether `when` is fulfilled now. An exception in it is logged once and counts as False."""
        if self.when is None:
            return True
        try:
            return self.when()
        except Exception as error:
            hook_failed("when= of a listener", self.when, error)
            return False


class _Subscribers:
    """A set of subscriptions; `changed` is called after each change."""

    __slots__ = ("all",)

    def __init__(self) -> None:
        self.all: tuple[Subscription, ...] = ()

    def add(
        self, listener: Listener, events: Iterable[type[Event]] = (), when: Callable[[], bool] | None = None
    ) -> Subscription:
        if isinstance(events, type):
            raise TypeError(f"events must be a tuple of event types, such as ({events.__name__},), not a single type")
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
        self._change(lambda before: (*before, subscription))
        return subscription

    def remove(self, subscription: Subscription) -> None:
        self._change(lambda before: tuple(one for one in before if one is not subscription))

    def _change(self, change: Callable[[tuple[Subscription, ...]], tuple[Subscription, ...]]) -> None:
        """Change the subscriptions. A collection may unsubscribe at any moment, so nothing is made under the lock."""
        if inside_state():
            put_off(partial(self._change, change))
            return
        changed = False
        while not changed:
            before = self.all
            after = change(before)
            with state_lock:
                if self.all is before:
                    self.all = after
                    changed = True
            if pending:
                run_pending()
        self.changed()

    def changed(self) -> None:
        """Called after a subscription was added or removed."""


class Topic(Throttle):
    """The listeners to one kind of event in one pipeline, and how the log writes it.

    Args:
        kind: the type of the events.
        level: the level of the log lines.
        is_enabled: returns whether the log has lines of that level.
        write: writes the line about an event, given the level, how many events were held back before, and the event.
    """

    __slots__ = ("is_enabled", "kind", "level", "listeners", "write")

    def __init__(
        self,
        kind: type[Event],
        level: int = 0,
        is_enabled: Callable[[int], bool] = lambda level: False,
        write: Callable[[int, int, Any], object] = lambda level, held_back, event: None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.listeners: tuple[Subscription, ...] = ()
        self.level = level
        self.is_enabled = is_enabled
        self.write = write


class _Everywhere(_Subscribers):
    __slots__ = ("buses", "make_topic")

    def __init__(self) -> None:
        super().__init__()
        self.buses: WeakSet[Bus] = WeakSet()
        self.make_topic: Callable[[type[Event], object], Topic] = lambda kind, key: Topic(kind)

    def changed(self) -> None:
        for bus in members(self.buses):
            bus.changed()


everywhere = _Everywhere()
"""The subscriptions to all pipelines, including pipelines that are created later."""


class BusOwner(Protocol):
    """The owner of a chain of policies. The gates that publish some events are part of it only if they are wanted."""

    def recompose(self) -> None:
        """Compose the chain again after subscriptions have changed."""


class Bus(_Subscribers):
    """The subscriptions to one pipeline.

    Args:
        owner: its chain is composed again when subscriptions change.

    Attributes:
        topics: the topics of the events that have been published, by a key; see `listeners_for`.
    """

    __slots__ = ("__weakref__", "owner", "topics")

    def __init__(self, owner: BusOwner) -> None:
        super().__init__()
        self.owner = owner
        self.topics: dict[object, Topic] = {}

    def open(self) -> None:
        """Include the subscriptions to all pipelines; called when the owner is ready for `recompose`."""
        everywhere.buses.add(self)

    def changed(self) -> None:
        """Update the listeners of each topic, and recompose the owner's chain."""
        with state_lock:  # that of changes, so that no thread leaves an old value
            for topic in members(self.topics.values()):
                topic.listeners = self._wanting(topic.kind)
        if pending:
            run_pending()
        self.owner.recompose()

    def _add(self, key: object, topic: Topic) -> Topic:
        """Add a topic; return it, or the one that another thread has added."""
        with state_lock:  # it gets its listeners in the same moment: a later subscription finds it, and updates it
            topic.listeners = self._wanting(topic.kind)
            topic = self.topics.setdefault(key, topic)
        if pending:
            run_pending()
        return topic

    def _wanting(self, kind: type[Event]) -> tuple[Subscription, ...]:
        """Return the subscriptions to events of a type, of this pipeline and of all."""
        return tuple(one for one in (*everywhere.all, *self.all) if one.wants(kind))

    def listeners_for(self, kind: type[Event], key: object = None) -> Sequence[Subscription]:
        """Return the subscriptions that want an event now, which must then be delivered to them.

        Args:
            kind: the type of the event.
            key: what distinguishes events of this type for the log. No other type may have the same key. None for the
                type itself.
        """
        try:
            topic = self.topics[key or kind]
        except KeyError:
            topic = self._add(key or kind, everywhere.make_topic(kind, key))
        listeners, until = topic.listeners, topic.until
        monotonic, is_enabled = clock.monotonic, topic.is_enabled  # calls of local variables are faster
        if until and topic.since <= monotonic() < until:  # see Throttle
            next(topic.held_back)
        elif is_enabled(topic.level):
            held_back = topic.let_pass()
            if held_back is not None:
                line = Subscription(self, partial(topic.write, topic.level, held_back), (kind,), None)
                return line, *_interested(listeners)
        return _interested(listeners) if listeners else ()

    def wants(self, kind: type[Event]) -> bool:
        """Return whether there is a subscription to events of type `kind`, whatever its `when` returns."""
        return any(one.wants(kind) for one in (*everywhere.all, *self.all))

    def publish(self, kind: type[Event], key: object = None, **facts: Any) -> None:
        """Build an event with these attributes and deliver it, if a listener wants it; see `listeners_for`."""
        if wanting := self.listeners_for(kind, key):
            deliver(kind(at=clock.monotonic(), **facts), wanting)


def _interested(subscriptions: tuple[Subscription, ...]) -> tuple[Subscription, ...]:
    """Return those whose `when` is fulfilled."""
    if len(subscriptions) == 1 and subscriptions[0].when is None:
        return subscriptions
    return tuple(one for one in subscriptions if one.interested())


def forget_log_lines() -> None:
    """Forget which events were logged or held back: the next one of each kind is logged."""
    for bus in members(everywhere.buses):
        bus.topics = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_log_lines)  # the parent logs what was held back before the fork


def subscribe(
    listener: Listener, *, events: Iterable[type[Event]] = (), when: Callable[[], bool] | None = None
) -> Subscription:
    """Subscribe to the events of all pipelines, including pipelines that are created later.

    Args:
        listener: called with each event, in the thread and task where it happened; it must not block. An exception
            that it raises is logged once and does not affect the call.
        events: the event types to deliver, subclasses included; all types if empty.
        when: a condition without parameters, evaluated before an event is built, possibly more than once. If it returns
            False, the listener does not get the event. None for no condition.

    Returns:
        The subscription: call it to unsubscribe, or use it as a context manager.

    Raises:
        TypeError: `listener` is not callable, or is a coroutine function; `events` contains something other than event
            types; or `when` is not callable.
    """
    return everywhere.add(listener, events, when)
