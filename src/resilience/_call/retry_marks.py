"""Marks on failures that a Retry has given up on, so that retries at several levels do not multiply.

Three nested Retries with three attempts each would make 27 calls. With marks they make 3: a Retry that gives up marks
the exception, and an outer Retry does not retry after an exception with a mark.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final

from resilience._outcome.failure import leaves
from resilience._util.locks import new_lock
from resilience.errors import BadResult
from resilience.events._types import GiveUpReason

MARK = "_resilience_given_up"
"""The attribute of an exception, or the extension of an httpx response, with the number of its mark."""
_Group: type[BaseException] = BaseExceptionGroup
NOTE = "resilience"
"""The extension of an httpx response with the text of the note."""
DEPTH = 8
"""How many causes of an exception are searched for marks, and how many given-up results are kept."""
PREFIX = "resilience: "
"""The first part of the library's note on an exception."""


class _MarkCounter:
    """The counter that numbers the marks. `latest` is the last number: marks set from now on have greater ones."""

    __slots__ = ("_lock", "latest")

    def __init__(self) -> None:
        self._lock = new_lock()
        self.latest = 0

    def draw(self) -> int:
        """Return the next number."""
        with self._lock:
            self.latest += 1
            return self.latest


mark_counter = _MarkCounter()


class GivenUpResults:
    """The bad results that inner Retries gave up on while a Loop ran: a list, since most values cannot carry marks.

    Args:
        outer: the list of the next outer Loop; None if there is none.
    """

    __slots__ = ("closed", "outer", "values")

    def __init__(self, outer: GivenUpResults | None) -> None:
        self.outer = outer
        self.closed = False
        self.values: deque[tuple[int, object]] = deque(maxlen=DEPTH)

    def close(self) -> None:
        """Close the list when the Loop has ended: tasks that it started may still have it in their context."""
        self.closed = True
        self.values.clear()


given_up_results: ContextVar[GivenUpResults | None] = ContextVar("resilience_given_up_results", default=None)


def mark(error: Exception) -> None:
    """Mark an exception or bad result that a Retry has given up on."""
    if not isinstance(error, BadResult):
        error.__dict__[MARK] = mark_counter.draw()
        return
    notes = _extensions(error.result)
    if notes is not None:
        notes[MARK] = mark_counter.draw()
    current = given_up_results.get()
    if current is not None and current.outer is not None and not current.outer.closed:
        current.outer.values.append((mark_counter.draw(), error.result))


def marked_since(error: BaseException, last_mark: int) -> bool:
    """Return whether an inner Retry has given up on an exception or its causes, with a later mark than `last_mark`."""
    alone = error.__cause__ is None and error.__context__ is None and not isinstance(error, _Group)
    if alone and not error.__dict__:
        return False  # the usual case: there is nothing to search
    if isinstance(error, BadResult):
        if _marked_response(error.result) > last_mark:
            return True
        current = given_up_results.get()
        return current is not None and any(
            number > last_mark and value is error.result for number, value in current.values
        )
    if alone:
        return _mark_of(error) > last_mark
    return any(_mark_of(one) > last_mark for one in _related(error))


def _mark_of(error: BaseException) -> int:
    """Return the mark on an exception, or on its `response`, such as that of an HTTPStatusError; 0 for none."""
    own: int = error.__dict__.get(MARK, 0)
    return own or _marked_response(error.__dict__.get("response"))


def _marked_response(response: object) -> int:
    """Return the mark on a response of httpx; 0 for none."""
    notes = _extensions(response)
    return 0 if notes is None else notes.get(MARK, 0)


def _extensions(result: object) -> dict[str, Any] | None:
    """Return the `extensions` of a response of httpx; None for any other object."""
    extensions: Any = getattr(result, "__dict__", {}).get("extensions")
    return extensions if issubclass(type(extensions), dict) else None


def _related(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its leaves if it is a group, and their causes or contexts, down to a depth of `DEPTH`."""
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
    """Add the library's note to an exception (PEP 678), or replace an earlier one."""
    earlier = _notes(error)
    kept = [one for one in earlier if not (isinstance(one, str) and one.startswith(PREFIX))]
    # Not by add_note: it sets an attribute, which an exception that is a frozen dataclass does not allow.
    error.__dict__["__notes__"] = [*kept, PREFIX + text]
    extensions = _extensions(error.result) if isinstance(error, BadResult) else None
    if extensions is not None:  # the caller gets the response, not the exception
        extensions[NOTE] = text


def _notes(error: BaseException) -> list[Any]:
    """Return the notes of an exception; not by getattr, since an exception may have a `__getattr__`."""
    notes: Any = error.__dict__.get("__notes__")
    return [*notes] if issubclass(type(notes), list | tuple) else []


def noted(error: BaseException) -> str:
    """Return the text of the library's note on an exception; empty if there is none."""
    for one in _notes(error):
        if isinstance(one, str) and one.startswith(PREFIX):
            return one.removeprefix(PREFIX)
    return ""


UNMARKED: Final = frozenset({GiveUpReason.NOT_IDEMPOTENT, GiveUpReason.BODY_NOT_REPLAYABLE})
"""For these reasons no mark is set: an outer Retry decides for itself whether it may repeat the call."""
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
"""Why a Retry gave up, for its note."""
REJECTIONS: Final[dict[str, str]] = {
    "open": "circuit open",
    "isolated": "circuit isolated",
    "full": "bulkhead full",
    "queue_timeout": "waited in the queue too long",
    "abandoned_full": "too many abandoned threads",
    "rate": "rate limit reached",
    "draining": "draining",
    "deadline": "deadline passed",
}
"""Why a further attempt was rejected, for the note: by the RejectReason."""
