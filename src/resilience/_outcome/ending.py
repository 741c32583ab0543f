"""Endings: how calls and attempts end, as the policies see it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from resilience._outcome.allowlist import Allowlist, Failure, FailureKind
from resilience._outcome.failure import leaves, merged
from resilience._util.log_once import hook_failed
from resilience.errors import DeadlineExceededError, LateResult, RejectedError, UsageError


class EndingKind(StrEnum):
    """How a call or an attempt ended.

    ERROR and ABANDONED are neutral: permits are released, but neither breakers nor budgets count them.
    """

    OK = "ok"
    """It returned a value, or raised an exception that is a known answer."""
    FAILED = "failed"
    """It failed, by the allowlist."""
    TIMED_OUT = "timed_out"
    """A deadline of the library passed while the dependency was called."""
    ERROR = "error"
    """It raised an exception that the allowlist does not list."""
    ABANDONED = "abandoned"
    """It was cancelled from outside, or ended before the dependency was called, such as rejected by an inner policy."""


class Hint(NamedTuple):
    """What a server said about a quota, with a response that is no failure.

    Attributes:
        remaining: how many more requests it admits before the quota is renewed, >= 0.
        resets_in: the seconds until the quota is renewed, >= 0.
    """

    remaining: float
    resets_in: float


class Ending:
    """How a call or an attempt ended.

    Args:
        kind: the kind; None to determine it from the error.
        error: the exception that was raised; None for a returned value.
        allowlist: the allowlist of the pipeline, which classifies the error; None for an empty one.
        failure: the failure, if `kind` is given; None if it is not a failure.
        replaced: whether a Substitute replaced the outcome.
        hint: what the server said about its quota; None for nothing.

    Attributes:
        kind: the kind.
        failure: the failure, by the pipeline's allowlist; None if it is not a failure.
        error: the exception that was raised, in the case of a bad or late result a BadResult or LateResult; None for
            any other returned value.

    If `kind` is not given, the error is classified when `kind` or `failure` is first read.
    """

    __slots__ = ("_judged", "allowlist", "error", "failure", "hint", "kind", "replaced")

    kind: EndingKind
    failure: Failure | None

    def __init__(
        self,
        kind: EndingKind | None = None,
        error: BaseException | None = None,
        allowlist: Allowlist | None = None,
        failure: Failure | None = None,
        *,
        replaced: bool = False,
        hint: Hint | None = None,
    ) -> None:
        self.hint = hint
        self.allowlist = allowlist
        self.error = error
        self.replaced = replaced
        self._judged = kind is not None
        if kind is not None:
            self.kind = kind
            self.failure = failure

    def __getattr__(self, name: str) -> Any:
        """Classify the error: called only for `kind` and `failure` while they are not set."""
        if name not in ("failure", "kind"):
            raise AttributeError(f"an Ending has no attribute {name!r}")
        self.kind, self.failure = judge(self.error, self.allowlist or _EMPTY)
        self._judged = True
        return getattr(self, name)

    def judged_by(self, allowlist: Allowlist) -> Ending:
        """Return this ending as a pipeline with another allowlist sees it."""
        if self.error is None or allowlist is self.allowlist:
            return self
        return Ending(None, self.error, allowlist)

    def by(self, allowlist: Allowlist | None) -> tuple[EndingKind, Failure | None]:
        """Return the kind and the failure by another allowlist, such as a policy's `on=`.

        Args:
            allowlist: the allowlist; None for that of the pipeline. It does not affect TIMED_OUT and ABANDONED.
        """
        if allowlist is None or allowlist is self.allowlist or self.error is None:
            return self.kind, self.failure
        if self._judged and self.kind in _UNAFFECTED_BY_ALLOWLISTS:
            return self.kind, self.failure
        return judge(self.error, allowlist)  # the pipeline's allowlist is not asked


def judge(error: BaseException | None, allowlist: Allowlist) -> tuple[EndingKind, Failure | None]:
    """Return the kind of the ending with this error, and the failure, by an allowlist.

    An exception in a predicate of the allowlist is logged once, and the kind is ERROR.
    """
    known: tuple[EndingKind, Failure | None] | None = allowlist.verdicts.get(error.__class__)
    if known is not None:
        return known
    if not isinstance(error, Exception) or isinstance(error, RejectedError):
        if len(allowlist.verdicts) < MAX_CACHED_VERDICTS:
            allowlist.verdicts[error.__class__] = _ABANDONED
        return _ABANDONED
    if isinstance(error, UsageError):
        return EndingKind.ERROR, None
    if isinstance(error, LateResult):
        return EndingKind.TIMED_OUT, DEADLINE if error.scored else UNSCORED_DEADLINE
    if isinstance(error, ExceptionGroup):
        return _judge_group(error, allowlist)
    if isinstance(error, DeadlineExceededError):
        if error.unprocessed:
            return EndingKind.ABANDONED, None
        return EndingKind.TIMED_OUT, DEADLINE if error.scored else UNSCORED_DEADLINE
    try:
        failure = allowlist.classify(error)
        kind = EndingKind.FAILED
        if failure is None:
            kind = EndingKind.OK if allowlist.is_answer(error) else EndingKind.ERROR
        verdict = kind, failure
        if len(allowlist.verdicts) < MAX_CACHED_VERDICTS and allowlist.is_by_type(error):
            allowlist.verdicts[error.__class__] = verdict
        return verdict
    except Exception as broken:
        hook_failed("predicate of an allowlist", allowlist, broken)
        return EndingKind.ERROR, None


def _judge_group(group: Any, allowlist: Allowlist) -> tuple[EndingKind, Failure | None]:
    """Return the kind and the failure of a group by its leaves: if all of them are failures, they are merged."""
    verdicts = [judge(leaf, allowlist) for leaf in leaves(group)]
    kinds = {kind for kind, _ in verdicts}
    failures = [failure for _, failure in verdicts if failure is not None]
    if len(failures) == len(verdicts):
        return (EndingKind.TIMED_OUT if kinds == {EndingKind.TIMED_OUT} else EndingKind.FAILED), merged(failures)
    return (kinds.pop() if len(kinds) == 1 else EndingKind.ERROR), None


MAX_CACHED_VERDICTS = 1000
"""The most exception types whose verdict an allowlist caches: a program may create types without limit."""
DEADLINE = Failure(FailureKind.TIMEOUT)
UNSCORED_DEADLINE = Failure(FailureKind.TIMEOUT, counted=False)
"""The caller's deadline left too little time to draw conclusions about the dependency."""
_ABANDONED: tuple[EndingKind, Failure | None] = (EndingKind.ABANDONED, None)
_UNAFFECTED_BY_ALLOWLISTS = (EndingKind.TIMED_OUT, EndingKind.ABANDONED)
_EMPTY = Allowlist()
OK = Ending(EndingKind.OK)
"""The ending of every call that returned a good value."""
ABANDONED = Ending(EndingKind.ABANDONED)
"""The ending of a call whose coroutine or stream was garbage-collected unfinished."""
