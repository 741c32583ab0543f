"""How calls and attempts end, as the policies see it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from resilience._outcome.allowlist import Allowlist, Failure, FailureKind
from resilience._outcome.failure import leaves, merged
from resilience._util.log_once import hook_failed
from resilience.errors import DeadlineExceededError, LateResult, RejectedError, UsageError


class EndingKind(StrEnum):
    """How something ended.

    ok: a value, or an exception that is a known answer. failed: a listed failure. timed_out: our own cut fired.
    error: an exception that nobody listed. abandoned: cancelled from outside, or refused by a policy further in, so
    that the dependency was never called. The last two are neutral: permits come back, nobody scores them.
    """

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    ERROR = "error"
    ABANDONED = "abandoned"


class Ending:
    """How a call or an attempt ended.

    Args:
        kind: one of the five kinds; None: it follows from the error.
        error: what was raised; None for a value.
        allowlist: the allowlist of the pipeline, by which the error is judged.
        failure: the failure, for a given `kind`.
        replaced: whether a substitute replaced the outcome.

    Attributes:
        kind: one of the five kinds.
        failure: the failure, by the pipeline's allowlist; None where it is not a failure.

    An error is judged when `kind` or `failure` is first read, by the allowlist's predicates at the latest then.
    """

    __slots__ = ("allowlist", "error", "failure", "kind", "replaced")

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
    ) -> None:
        self.allowlist = allowlist
        self.error = error
        self.replaced = replaced
        if kind is not None:
            self.kind = kind
            self.failure = failure

    def __getattr__(self, name: str) -> Any:
        """Judge: called only for `kind` and `failure` while they are not set."""
        if name not in ("failure", "kind"):
            raise AttributeError(f"an Ending has no attribute {name!r}")
        self.kind, self.failure = judge(self.error, self.allowlist or NOTHING)
        return getattr(self, name)

    def by(self, allowlist: Allowlist | None) -> tuple[EndingKind, Failure | None]:
        """Return the kind and the failure by a policy's own allowlist, its `on=`; by the pipeline's for None."""
        kind = self.kind
        if allowlist is None or allowlist is self.allowlist or self.error is None or kind in _WHATEVER_IS_LISTED:
            return kind, self.failure
        return judge(self.error, allowlist)


def judge(error: BaseException | None, allowlist: Allowlist) -> tuple[EndingKind, Failure | None]:
    """Return the kind of ending that `error` is, and the failure, in the eyes of an allowlist."""
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
        return EndingKind.TIMED_OUT, DEADLINE if error.scored else HASTE
    if isinstance(error, ExceptionGroup):
        return _judge_group(error, allowlist)
    if isinstance(error, DeadlineExceededError):
        if error.unprocessed:
            return EndingKind.ABANDONED, None
        return EndingKind.TIMED_OUT, DEADLINE if error.scored else HASTE
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
    """Judge a group by its leaves: it is what they all are; failures of several kinds make one."""
    verdicts = [judge(leaf, allowlist) for leaf in leaves(group)]
    kinds = {kind for kind, _ in verdicts}
    failures = [failure for _, failure in verdicts if failure is not None]
    if len(failures) == len(verdicts):
        return (EndingKind.TIMED_OUT if kinds == {EndingKind.TIMED_OUT} else EndingKind.FAILED), merged(failures)
    return (kinds.pop() if len(kinds) == 1 else EndingKind.ERROR), None


MAX_CACHED_VERDICTS = 1000
"""So many types of exceptions are remembered; a program that makes more of them makes them as it runs."""
DEADLINE = Failure(FailureKind.TIMEOUT)
HASTE = Failure(FailureKind.TIMEOUT, counted=False)
"""The caller had too little time for it to say anything about the dependency."""
_ABANDONED: tuple[EndingKind, Failure | None] = (EndingKind.ABANDONED, None)
_WHATEVER_IS_LISTED = (EndingKind.TIMED_OUT, EndingKind.ABANDONED)
NOTHING = Allowlist()
OK = Ending(EndingKind.OK)
"""The ending of every call that returned a value."""
ABANDONED = Ending(EndingKind.ABANDONED)
"""The ending of what was dropped."""
