"""What the tests of the bulkhead share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from resilience import Call, Ending, Pipeline, Ticket
from resilience._outcome.ending import OK
from resilience._policies.bulkhead import Bulkhead
from resilience.events import Rejected
from resilience.testing import Recorder

PATIENCE = 60.0
LONG = 1e6


def call_of(bulkhead: Bulkhead, **settings: Any) -> Call:
    _, binding = Pipeline(bulkhead, **settings).entry()
    return Call.make(binding, int, (), {})


def admitted(bulkhead: Bulkhead, calls: int = 1) -> Call:
    """Let so many calls in, by the hooks; return a call to go on with."""
    call = call_of(bulkhead)
    for _ in range(calls):
        assert not isinstance(bulkhead.admit(call), Ticket)
    return call


def give_back(bulkhead: Bulkhead, ending: Ending = OK) -> None:
    """End one of the calls that were let in by the hooks."""
    bulkhead.settle(vars(bulkhead)["_free"], ending)


def queued(bulkhead: Bulkhead, call: Call) -> Ticket:
    ticket = bulkhead.admit(call)
    assert isinstance(ticket, Ticket)
    return ticket


def idle(bulkhead: Bulkhead) -> bool:
    return (bulkhead.in_flight, bulkhead.queued) == (0, 0)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def joined(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def reasons(recorder: Recorder) -> list[str]:
    return [str(event.reason) for event in recorder.of(Rejected)]
