"""Marks on what a Retry has given up on, so that retries at several levels never multiply.

Three nested layers of three attempts would make 27 calls. With marks they make 3: whoever gave up says so on the
exception, and whoever sees the mark lets it pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final

from resilience._outcome.allowlist import leaves
from resilience._util.locks import new_lock
from resilience.errors import BadResult
from resilience.events._types import GiveUpReason

MARK = "_resilience_given_up"
_Group: type[BaseException] = BaseExceptionGroup
NOTE = "resilience"
"""The extension of a response that says why it was given up on."""
DEPTH = 8
PREFIX = "resilience: "


class _MarkCounter:
    """Marks are numbered. `latest` is the last number drawn: what is marked from now on has a greater one."""

    __slots__ = ("_lock", "latest")

    def __init__(self) -> None:
        self._lock = new_lock()
        self.latest = 0

    def draw(self) -> int:
        """Return a number that is greater than all before it."""
        with self._lock:
            self.latest += 1
            return self.latest


mark_counter = _MarkCounter()


class GivenUpResults:
    """The bad results that were given up on while an outer loop ran. Values carry no marks, so they are listed."""

    __slots__ = ("closed", "outer", "values")

    def __init__(self, outer: GivenUpResults | None) -> None:
        self.outer = outer
        self.closed = False
        self.values: deque[tuple[int, object]] = deque(maxlen=DEPTH)

    def close(self) -> None:
        """The loop is over; a task that it has started may still have this ledger in its context."""
        self.closed = True
        self.values.clear()


given_up_results: ContextVar[GivenUpResults | None] = ContextVar("resilience_ledger", default=None)


def mark(error: Exception) -> None:
    """Mark what a Retry has given up on."""
    if not isinstance(error, BadResult):
        error.__dict__[MARK] = mark_counter.draw()
        return
    notes = _extensions(error.result)
    if notes is not None:
        notes[MARK] = mark_counter.draw()
    current = given_up_results.get()
    if current is not None and current.outer is not None and not current.outer.closed:
        current.outer.values.append((mark_counter.draw(), error.result))


def marked_since(error: BaseException, stamp: int) -> bool:
    """Return whether a Retry further in has given up on it, or on what caused it, after `stamp`."""
    alone = error.__cause__ is None and error.__context__ is None and not isinstance(error, _Group)
    if alone and not error.__dict__:
        return False  # nothing to search: the usual case
    if isinstance(error, BadResult):
        if _marked_response(error.result) > stamp:
            return True
        current = given_up_results.get()
        return current is not None and any(number > stamp and value is error.result for number, value in current.values)
    if alone:
        return _mark_of(error) > stamp
    return any(_mark_of(one) > stamp for one in _related(error))


def _mark_of(error: BaseException) -> int:
    """Return the mark on an exception, or on the response that it is about, such as an HTTPStatusError's."""
    own: int = error.__dict__.get(MARK, 0)
    return own or _marked_response(error.__dict__.get("response"))


def _marked_response(response: object) -> int:
    notes = _extensions(response)
    return 0 if notes is None else notes.get(MARK, 0)


def _extensions(result: object) -> dict[str, Any] | None:
    """Return the place for notes that a response of httpx has."""
    there: Any = getattr(result, "__dict__", {}).get("extensions")
    return there if issubclass(type(there), dict) else None


def _related(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its leaves if it is a group, and what they came from, `DEPTH` deep."""
    level = [error]
    for _ in range(DEPTH):
        deeper: list[BaseException] = []
        for one in level:
            yield one
            for leaf in leaves(one):
                if leaf is not one:
                    yield leaf
                cause = leaf.__cause__
                if cause is None and not leaf.__suppress_context__:
                    cause = leaf.__context__
                if cause is not None:
                    deeper.append(cause)
        level = deeper


def note(error: BaseException, text: str) -> None:
    """Put our note on an exception (PEP 678), in the place of an earlier one."""
    earlier = _notes(error)
    kept = [one for one in earlier if not (isinstance(one, str) and one.startswith(PREFIX))]
    # Not by add_note: an exception that is a frozen dataclass refuses every attribute that is set.
    error.__dict__["__notes__"] = [*kept, PREFIX + text]
    place = _extensions(error.result) if isinstance(error, BadResult) else None
    if place is not None:  # the exception turns into the response again
        place[NOTE] = text


def _notes(error: BaseException) -> list[Any]:
    """Return the notes; not by getattr, since an exception may answer to every name."""
    notes: Any = error.__dict__.get("__notes__")
    return [*notes] if issubclass(type(notes), list | tuple) else []


def noted(error: BaseException) -> str:
    """Return the text of our note on an exception; empty when there is none."""
    for one in _notes(error):
        if isinstance(one, str) and one.startswith(PREFIX):
            return one.removeprefix(PREFIX)
    return ""


UNMARKED: Final = frozenset({GiveUpReason.NOT_IDEMPOTENT, GiveUpReason.BODY_NOT_REPLAYABLE})
NESTED_REASON: Final = "; retries at several levels do not multiply"
REASONS: Final[dict[str, str]] = {
    GiveUpReason.ATTEMPTS: "no attempts are left",
    GiveUpReason.STOP: "its stop condition was met",
    GiveUpReason.DEADLINE: "the next wait would end past the deadline",
    GiveUpReason.BUDGET: "the retry budget is empty",
    GiveUpReason.NOT_IDEMPOTENT: "the call is not idempotent, and may have been processed",
    GiveUpReason.NOT_RETRYABLE: "such a failure is not retried, unless the server asks for it",
    GiveUpReason.BODY_NOT_REPLAYABLE: "the request body cannot be sent again",
    GiveUpReason.RETRY_AFTER: "the server asks for a longer wait than max_retry_after",
}
REJECTIONS: Final[dict[str, str]] = {
    "open": "circuit open",
    "isolated": "circuit isolated",
    "full": "bulkhead full",
    "queue_timeout": "waited in the queue too long",
    "abandoned_full": "too many calls left behind",
    "rate": "rate limit reached",
    "draining": "draining",
    "deadline": "deadline passed",
}
