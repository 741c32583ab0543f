"""Marks on failures that a Retry has given up on, so that retries at several levels do not multiply.

Three nested Retries with three attempts each would make 27 calls. With marks they make 3: a Retry that gives up marks
the exception with the attempts that it is inside of, and an outer Retry does not retry after an exception whose mark
names its own attempt. A mark that names other attempts means nothing to it: one exception object may be raised to many
callers, such as that of a broken connection that they share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final

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


class AttemptContext:
    """The attempts that a Loop makes for one call, known to the code inside by its context.

    Attributes:
        number: the number of the current attempt of this Loop, from 1.
        enclosing: the attempts around it, as pairs of their context and number, outermost first.
        ended: whether the call has ended. The context then stays the value of the context variable, which costs less
            than to restore the previous one.
        given_up: the bad results that inner Retries have given up on, with the number of the attempt; None for none.
    """

    # Defaults of the class, not an `__init__`: each guarded call with a Retry makes one.
    number: int = 1
    enclosing: tuple[tuple[AttemptContext, int], ...] = ()
    ended: bool = False
    given_up: deque[tuple[int, object]] | None = None

    @classmethod
    def begin(cls) -> AttemptContext:
        """Return a new context, inside of the attempts that are known to this one, and set it."""
        new = cls()
        outer = attempt_context.get()
        if outer is NO_ATTEMPTS:
            pass
        elif not outer.ended:
            new.enclosing = (*outer.enclosing, (outer, outer.number))
        elif outer.enclosing:
            new.enclosing = tuple(one for one in outer.enclosing if not one[0].ended)
        attempt_context.set(new)
        return new

    def end(self) -> None:
        """End the attempts. Tasks that were started inside may still have them in their context."""
        self.ended = True
        self.given_up = None


NO_ATTEMPTS = AttemptContext()
"""The context of code that is not inside of an attempt."""
NO_ATTEMPTS.end()
attempt_context: ContextVar[AttemptContext] = ContextVar("resilience_attempts", default=NO_ATTEMPTS)
"""The innermost attempts that the running code is inside of, which may have ended."""


class Mark:
    """The mark on an exception or a response that a Retry has given up on.

    A mark that was pickled comes from another process, from inside the attempt that has received it: it names every
    attempt.
    """

    __slots__ = ("_attempts",)

    def __init__(self, *, names_all: bool = False) -> None:
        self._attempts: dict[tuple[AttemptContext, int], None] | None = None if names_all else {}

    def add(self, enclosing: tuple[tuple[AttemptContext, int], ...]) -> None:
        """Name more attempts, and forget those that are over."""
        attempts = self._attempts
        if attempts is not None:
            for one in members(attempts):
                if one[0].ended or one[0].number != one[1]:
                    attempts.pop(one, None)
            attempts.update(dict.fromkeys(enclosing))

    def names(self, context: AttemptContext) -> bool:
        """Return whether it was set inside of the current attempt."""
        return self._attempts is None or (context, context.number) in self._attempts

    def __reduce__(self) -> tuple[Any, ...]:
        return _pickled_mark, ()

    def __deepcopy__(self, memo: object) -> Mark:
        return self


def _pickled_mark() -> Mark:
    return Mark(names_all=True)


def mark(error: Exception, context: AttemptContext) -> None:
    """Mark an exception or bad result that a Retry has given up on; `context` is that of its attempts."""
    if not isinstance(error, BadResult):
        error.__dict__.setdefault(MARK, Mark()).add(context.enclosing)
        return
    notes = _extensions(error.result)
    if notes is not None:
        notes.setdefault(MARK, Mark()).add(context.enclosing)
    for outer, number in context.enclosing:
        if not outer.ended:
            given_up = outer.given_up
            if given_up is None:
                given_up = outer.given_up = deque(maxlen=DEPTH)
            given_up.append((number, error.result))


def given_up_inside(error: BaseException, context: AttemptContext) -> bool:
    """Return whether a Retry inside of the current attempt has given up on an exception or on one of its causes."""
    alone = error.__cause__ is None and error.__context__ is None and not isinstance(error, _Group)
    if alone and not error.__dict__:
        return False  # the usual case: there is nothing to search
    if isinstance(error, BadResult):
        if _names(_mark_of_response(error.result), context):
            return True
        given_up = context.given_up or ()
        return any(number == context.number and value is error.result for number, value in members(given_up))
    if alone:
        return _names(_mark_of(error), context)
    return any(_names(_mark_of(one), context) for one in _related(error))


def _names(mark: Any, context: AttemptContext) -> bool:
    return mark.__class__ is Mark and mark.names(context)


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
    "draining": "draining",
    "deadline": "deadline passed",
}
"""Why a further attempt was rejected, for the note: by the RejectReason."""
