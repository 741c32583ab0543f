"""The delivery of events to their listeners, and the count of listeners that fail."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resilience._util.finalizers import run_later
from resilience._util.locks import inside_state, thread_state
from resilience._util.log_once import hook_failed
from resilience._util.named_counts import NamedCounts
from resilience.events._types import Event

listener_errors = NamedCounts()
"""The exceptions that listeners have raised, by the name of the pipeline whose event it was."""


def deliver(event: Event, subscriptions: Iterable[Any]) -> None:
    """Call the listeners with an event; inside a finalizer, leave that to the next call. Their errors are logged."""
    if thread_state.finalizing or inside_state():
        run_later(lambda: deliver(event, subscriptions))
        return
    for subscription in subscriptions:
        try:
            subscription.listener(event)
        except Exception as error:
            listener_errors.add(event.pipeline)
            hook_failed("listener", subscription.listener, error)
