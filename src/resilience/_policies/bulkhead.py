"""Bulkhead: limit the number of concurrent calls, so that one slow dependency cannot exhaust the whole process."""

from __future__ import annotations

from dataclasses import dataclass

from resilience._call.wait_queue import Ticket
from resilience._outcome.ending import Ending
from resilience._policies.permits import ConcurrencyGate, validate_queue
from resilience._util import validation
from resilience._util.values import Value
from resilience.events._types import Mode, ModeName


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BulkheadSettings(Value):
    """The settings of a Bulkhead; `Bulkhead` describes each."""

    limit: int
    queue: int
    max_wait: float

    def __post_init__(self) -> None:
        """Validate the settings; `max_wait` becomes a float."""
        validation.integer("limit", self.limit, low=1)
        validate_queue(self)


class Bulkhead(ConcurrencyGate[list[None]]):
    """Admit at most `limit` concurrent calls; more calls may wait in a queue, first come, first served.

    Args:
        limit: the greatest number of concurrent calls, >= 1. A streamed result counts until it has ended.
        queue: the greatest number of calls that wait for a permit, >= 0; 0 for no queue.
        max_wait: the longest wait in the queue, in seconds, >= 0; with 0 no call waits. A call's deadline ends its wait
            earlier.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode, a call that would have been rejected or had to wait is reported, admitted
            at once, and not counted in `in_flight`.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    A call that is not admitted raises `BulkheadFullError`, with the reason "full" if the queue has no room for it, and
    "queue_timeout" if no permit was free within `max_wait`. If the call's deadline passes in the queue, it raises
    `DeadlineExceededError`. In all three cases the dependency was not called.

    Threads, asyncio tasks and trio tasks may share one bulkhead and its queue. A waiting call is never overtaken by a
    later one. `update()` works while calls are running. A higher `limit` admits waiting calls at once. Under a lower
    `limit` the admitted calls finish, and none is admitted until fewer than `limit` are running. A change of `queue`
    or `max_wait` applies to later calls.
    """

    kind = "bulkhead"
    settings: BulkheadSettings
    _advice = "raise limit, queue or max_wait if the dependency can take more calls"

    # The token of a call that has not waited is the list that its permit returns to.

    def __init__(
        self,
        limit: int,
        *,
        queue: int = 0,
        max_wait: float = 1.0,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        settings = BulkheadSettings(limit=limit, queue=queue, max_wait=max_wait)
        super().__init__(settings, limit, name=name, mode=mode)

    def _begin(self) -> None:
        super()._begin()
        self._token = self._free

    def settle(self, token: list[None] | Ticket, ending: Ending) -> None:
        """Release the permit, whatever the ending, and grant it to the first waiting call."""
        if isinstance(token, Ticket):
            token.release()
        else:
            token.append(None)
        if self._waiting:
            self._wait_queue.grant()

    def _wanted_limit(self) -> int:
        return self.settings.limit
