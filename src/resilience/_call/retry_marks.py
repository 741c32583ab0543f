"""Marks on failures that a Retry has given up on, so that retries at several levels do not multiply.

Three nested Retries with three attempts each would make 27 calls. With marks they make 3: a Retry that gives up marks
the exception with the attempts that it is inside of, which it knows by its context, and an outer Retry does not retry
after an exception whose mark names its own attempt. A mark that names other attempts means nothing to it: one exception
object may be raised to many callers, such as that of a broken connection that they share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

from resilience._call.ambient import Ambient
from resilience._outcome.failure import leaves
from resilience._util.locks import members
from resilience.errors import BadResult
from resilience.events._types import GiveUpReason

MARK = "_resilience_given_up"
"""The attribute of an exception, or the extension of an httpx response, with its Mark."""
_Group: type[BaseException] = BaseExceptionGroup
NOTE = "resilience"
"""The extension of an httpx response with the text of the note."""
DEPTH = 8
"""How many causes of an exception are searched for marks, and how many given-up results are kept."""
PREFIX = "resilience: "
"""The first part of the library's note on an exception."""


class Mark:
    """The mark on an exception or a response that a Retry has given up on.

    A mark that was pickled comes from another process, from inside the attempt that has received it: it names every
    attempt.
    """

    __slots__ = ("_attempts",)

    def __init__(self, *, names_all: bool = False) -> None:
        self._attempts: dict[Ambient, None] | None = None if names_all else {}

    def add(self, own: Ambient, around: Iterable[Ambient]) -> None:
        """Name the attempt that the Retry has given up after, and those around it; forget those that are over."""
        attempts = self._attempts
        if attempts is not None:
            for one in members(attempts):
                if not one.live:
                    attempts.pop(one, None)
            attempts[own] = None
            attempts.update(dict.fromkeys(around))

    def names(self, attempt: Ambient) -> bool:
        """Return whether it was set inside of an attempt, or after it by another Retry of the same call."""
        return self._attempts is None or attempt in self._attempts

    def __reduce__(self) -> tuple[Any, ...]:
        return _pickled_mark, ()

    def __deepcopy__(self, memo: object) -> Mark:
        return self


def _pickled_mark() -> Mark:
    return Mark(names_all=True)


def mark(error: Exception, inside: Ambient) -> None:
    """Mark an exception or bad result that a Retry has given up on.

    Args:
        error: the exception, or the BadResult with the result.
        inside: what the code inside of the last attempt knew by its context.
    """
    around = () if inside.outer is None else tuple(inside.outer.around())
    error.__dict__.setdefault(MARK, Mark()).add(inside, around)
    if not isinstance(error, BadResult):
        return
    extensions = _extensions(error.result)
    if extensions is not None:
        extensions.setdefault(MARK, Mark()).add(inside, around)
    for one in around:
        given_up = one.given_up
        if given_up is None:
            given_up = one.given_up = deque(maxlen=DEPTH)
        given_up.append(error.result)


def given_up_inside(error: BaseException, inside: Ambient) -> bool:
    """Return whether a Retry inside of an attempt has given up on an exception or on one of its causes."""
    alone = error.__cause__ is None and error.__context__ is None and not isinstance(error, _Group)
    if alone and not error.__dict__:
        return False  # the usual case: there is nothing to search
    if isinstance(error, BadResult):
        if _names(_mark_of(error), inside) or _names(_mark_of_response(error.result), inside):
            return True
        return any(value is error.result for value in members(inside.given_up or ()))
    if alone:
        return _names(_mark_of(error), inside)
    return any(_names(_mark_of(one), inside) for one in _related(error))


def _names(mark: Any, inside: Ambient) -> bool:
    return mark.__class__ is Mark and mark.names(inside)


def _mark_of(error: BaseException) -> object:
    """Return the mark on an exception, or on its `response`, such as that of an HTTPStatusError; None without one."""
    return error.__dict__.get(MARK) or _mark_of_response(error.__dict__.get("response"))


def _mark_of_response(response: object) -> object:
    """Return the mark on a response of httpx; None without one."""
    notes = _extensions(response)
    return None if notes is None else notes.get(MARK)


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
    "cooldown": "the server asked for a pause",
    "draining": "draining",
    "deadline": "deadline passed",
}
"""Why a further attempt was rejected, for the note: by the RejectReason."""
