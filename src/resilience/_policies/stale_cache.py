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
    _shares_state = True
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
        self._results = _Results(max_entries)

    def on_result(self, call: Call, result: Any) -> None:
        """Keep a good result."""
        key = self._key(call)
        if key is not None:
            self._results.keep(key, result)

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
        self._results.clear()

    def _settings_changed(self) -> None:
        """Drop what is too much under a smaller `max_entries`."""
        self._results.limit(self.settings.max_entries)

    def _kept(self, call: Call) -> tuple[float, Any] | None:
        """Return when the result for a call was kept, and the result; None if there is none that is young enough."""
        key = self._key(call)
        return None if key is None else self._results.find(key, self.settings.max_age)

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


class _Results:
    """The kept results by key, the least recently used one first. What is dropped is freed without the lock."""

    def __init__(self, max_entries: int) -> None:
        self._lock = new_lock()
        self._by_key: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._max_entries = max_entries

    def __len__(self) -> int:
        return len(self._by_key)

    def keep(self, key: Hashable, result: Any) -> None:
        """Keep a result, and drop what is too much."""
        dropped: list[object] = []
        with self._lock:
            dropped.append(self._by_key.pop(key, None))
            self._by_key[key] = clock.monotonic(), result
            self._trim(dropped)

    def find(self, key: Hashable, max_age: float) -> tuple[float, Any] | None:
        """Return when a result was kept, and the result; None if there is none that is young enough."""
        with self._lock:
            kept = self._by_key.get(key)
            if kept is None:
                return None
            fresh = clock.monotonic() - kept[0] <= max_age
            if fresh:
                self._by_key.move_to_end(key)
            else:
                del self._by_key[key]
        return kept if fresh else None

    def limit(self, max_entries: int) -> None:
        """Set the greatest number of results."""
        dropped: list[object] = []
        with self._lock:
            self._max_entries = max_entries
            self._trim(dropped)

    def clear(self) -> None:
        """Drop all results."""
        with self._lock:
            dropped, self._by_key = self._by_key, OrderedDict()
        del dropped

    def _trim(self, dropped: list[object]) -> None:
        while len(self._by_key) > self._max_entries:
            dropped.append(self._by_key.popitem(last=False))
