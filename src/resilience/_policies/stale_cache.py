"""StaleCache: answer with the last good result while the dependency fails."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Never

from resilience._call.call import Call
from resilience._outcome.allowlist import Allowlist, Failures
from resilience._outcome.ending import Ending
from resilience._policies.shapes import Substitute
from resilience._util import validation
from resilience._util.clock import clock
from resilience._util.locks import new_lock
from resilience._util.log_once import hook_failed
from resilience._util.values import Value
from resilience.events._types import Mode, ModeName


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StaleCacheSettings(Value):
    """The settings of a StaleCache; `StaleCache` describes each."""

    key: Callable[[Call], Hashable] | None
    max_age: float
    max_entries: int
    on: Any

    def __post_init__(self) -> None:
        """Validate the settings; `max_age` becomes a float."""
        given: Any = self.key
        if given is not None and not callable(given):
            raise TypeError(f"key must be a callable that takes the call and returns a hashable key, not {given!r}")
        object.__setattr__(self, "max_age", validation.number("max_age", self.max_age, above=True))
        validation.integer("max_entries", self.max_entries, low=1)
        if self.on is not None:
            object.__setattr__(self, "on", Allowlist.of(self.on))


class StaleCache(Substitute[Never]):
    """Answer with the last good result of the same call while the dependency fails, rejects or is too slow.

    Args:
        key: returns what distinguishes calls, given the call; results are shared by calls with equal keys. It returns
            None for a call whose result is not kept. None for the function and its arguments; calls whose arguments are
            not hashable are not kept then.
        max_age: the greatest age of a result that is used, in seconds, > 0.
        max_entries: the greatest number of results that are kept, >= 1; the least recently used one is dropped.
        on: what is replaced; None for every failure by the pipeline's allowlist, every rejection, and every deadline
            that passed. See `Fallback`.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode, results are kept, and a replacement is reported but not made.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range.

    It is no cache for fresh results: each call is made, and only its failure is replaced. (RFC 5861 calls that
    stale-if-error.) Without a kept result the failure is raised. Callers get the same object, so it must not be
    changed. Streamed results are not kept. The event `FallbackUsed` has the age of the result.
    """

    kind = "stale_cache"
    settings: StaleCacheSettings

    def __init__(
        self,
        key: Callable[[Call], Hashable] | None = None,
        *,
        max_age: float = 300.0,
        max_entries: int = 1024,
        on: Failures | None = None,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        settings = StaleCacheSettings(key=key, max_age=max_age, max_entries=max_entries, on=on)
        super().__init__(settings, name=name, mode=mode)
        self._lock = new_lock()
        self._results: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()

    def on_result(self, call: Call, result: Any) -> None:
        """Keep a good result."""
        key = self._key(call)
        if key is None:
            return
        dropped: list[object] = []  # what is dropped is freed without the lock: it may run code of the user
        with self._lock:
            dropped.append(self._results.pop(key, None))
            self._results[key] = clock.monotonic(), result
            while len(self._results) > self.settings.max_entries:
                dropped.append(self._results.popitem(last=False))

    def should_handle(self, call: Call, ending: Ending) -> bool:
        """Return whether to replace this ending, and a result is there that is not too old."""
        return super().should_handle(call, ending) and self._kept(call) is not None

    def replace(self, call: Call, ending: Ending) -> Any:
        """Return the kept result; raise the exception if it was dropped meanwhile."""
        kept = self._kept(call)
        if kept is None:
            assert ending.error is not None
            raise ending.error
        return kept[1]

    def age(self, call: Call) -> float | None:
        """Return the age of the result that is kept for a call, in seconds; None if there is none."""
        kept = self._kept(call)
        return None if kept is None else max(0.0, clock.monotonic() - kept[0])

    def snapshot(self) -> dict[str, Any]:
        """Return the number of kept results as `entries`."""
        return {"entries": len(self._results)}

    def reset(self) -> None:
        """Drop all results."""
        with self._lock:
            dropped, self._results = self._results, OrderedDict()
        del dropped

    def _settings_changed(self) -> None:
        """Drop what is too much under a smaller `max_entries`."""
        dropped: list[object] = []
        with self._lock:
            while len(self._results) > self.settings.max_entries:
                dropped.append(self._results.popitem(last=False))

    def _kept(self, call: Call) -> tuple[float, Any] | None:
        """Return when the result for a call was kept, and the result; None if there is none that is young enough."""
        key = self._key(call)
        if key is None:
            return None
        with self._lock:
            kept = self._results.get(key)
            if kept is None:
                return None
            fresh = clock.monotonic() - kept[0] <= self.settings.max_age
            if fresh:
                self._results.move_to_end(key)
            else:
                del self._results[key]
        return kept if fresh else None

    def _key(self, call: Call) -> Hashable | None:
        """Return the key of a call; None if its result is not kept."""
        own = self.settings.key
        try:
            key = (call.function, call.args, *sorted(call.kwargs.items())) if own is None else own(call)
            hash(key)
        except TypeError as error:
            if own is not None:
                hook_failed("key= of a StaleCache", own, error)
            return None
        except Exception as error:
            hook_failed("key= of a StaleCache", own, error)
            return None
        return key
