"""How endings are judged: deadlines, groups, and predicates that fail."""

from __future__ import annotations

import logging

import pytest

from resilience import Allowlist, DeadlineExceededError, Ending, FailureKind, Pipeline, RejectedError, Retry
from resilience._outcome.ending import judge
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience.errors import UsageError

pytestmark = pytest.mark.usefixtures("nothing_logged_yet")


def test_a_cut_that_is_not_scored_is_no_failure_that_counts() -> None:
    unfair = Ending(None, DeadlineExceededError(scored=False))
    fair = Ending(None, DeadlineExceededError())

    assert unfair.failure is not None
    assert fair.failure is not None
    assert (unfair.kind, unfair.failure.kind, unfair.failure.counted) == ("timed_out", FailureKind.TIMEOUT, False)
    assert (fair.kind, fair.failure.counted) == ("timed_out", True)


@pytest.mark.parametrize(
    ("leaves", "kind", "counted"),
    [
        ([DeadlineExceededError(unprocessed=True)], "abandoned", None),
        ([RejectedError(), DeadlineExceededError(unprocessed=True)], "abandoned", None),
        ([DeadlineExceededError(scored=False)], "timed_out", False),
        ([DeadlineExceededError()], "timed_out", True),
        ([DeadlineExceededError(), ConnectionError()], "failed", True),
        ([ConnectionError(), RejectedError()], "error", None),
        ([ConnectionError(), UsageError()], "error", None),
        ([KeyError()], "error", None),
    ],
)
def test_a_group_is_what_its_leaves_are(leaves: list[Exception], kind: str, counted: bool | None) -> None:
    verdict, failure = judge(ExceptionGroup("", [ExceptionGroup("", leaves)]), NETWORK_ERRORS)

    assert verdict == kind
    assert (None if failure is None else failure.counted) == counted


def test_the_log_of_a_broken_predicate_does_not_show_what_it_was_asked_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(error: Exception) -> bool:
        raise ZeroDivisionError("a bug in a hook")

    def secretive() -> None:
        raise ValueError("token=hunter2")

    with caplog.at_level(logging.ERROR, "resilience"), pytest.raises(ValueError, match="hunter2"):
        Pipeline(Retry(), failures=Allowlist(when=broken)).call(secretive)

    assert "a bug in a hook" in caplog.text
    assert "hunter2" not in caplog.text
