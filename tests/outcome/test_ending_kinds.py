"""Endings: which of the five kinds an outcome is, the failure that it tells of, and in whose eyes."""

import asyncio

import pytest

from resilience._outcome.allowlist import Allowlist
from resilience._outcome.ending import OK, Ending, EndingKind
from resilience._outcome.failure import Failure, FailureKind
from resilience._util import log_once
from resilience.errors import CircuitOpenError, DeadlineExceededError, LateResult, UsageError

TIMEOUT = Failure(FailureKind.TIMEOUT)
UNSCORED_DEADLINE = Failure(FailureKind.TIMEOUT, counted=False)


class CardDeclined(Exception):
    """A known answer."""


FAILURES = Allowlist(ConnectionError, answers=(CardDeclined,))


@pytest.mark.parametrize(
    ("error", "kind", "failure"),
    [
        (ConnectionResetError(), EndingKind.FAILED, Failure()),
        (ConnectionRefusedError(), EndingKind.FAILED, Failure(unprocessed=True)),
        (CardDeclined(), EndingKind.OK, None),
        (KeyError(), EndingKind.ERROR, None),
        (UsageError(), EndingKind.ERROR, None),
        (CircuitOpenError(), EndingKind.ABANDONED, None),
        (asyncio.CancelledError(), EndingKind.ABANDONED, None),
        (KeyboardInterrupt(), EndingKind.ABANDONED, None),
        (DeadlineExceededError(), EndingKind.TIMED_OUT, TIMEOUT),
        (DeadlineExceededError(scored=False), EndingKind.TIMED_OUT, UNSCORED_DEADLINE),
        (DeadlineExceededError(unprocessed=True), EndingKind.ABANDONED, None),
    ],
    ids=repr,
)
def test_the_kind_and_the_failure_of_an_exception(
    error: BaseException, kind: EndingKind, failure: Failure | None
) -> None:
    by_kind, by_failure = Ending(None, error, FAILURES), Ending(None, error, FAILURES)

    assert (by_kind.kind, by_kind.failure) == (kind, failure)
    assert (by_failure.failure, by_failure.kind) == (failure, kind)


@pytest.mark.parametrize(("scored", "failure"), [(True, TIMEOUT), (False, UNSCORED_DEADLINE)])
def test_a_result_that_came_late_was_cut(scored: bool, failure: Failure) -> None:
    ending = Ending(None, LateResult("late", scored=scored), FAILURES)

    assert (ending.kind, ending.failure) == (EndingKind.TIMED_OUT, failure)


@pytest.mark.parametrize(
    ("leaves", "kind", "failure"),
    [
        ([ConnectionResetError(), DeadlineExceededError()], EndingKind.FAILED, TIMEOUT),
        ([DeadlineExceededError(), DeadlineExceededError()], EndingKind.TIMED_OUT, TIMEOUT),
        ([ConnectionRefusedError(), ConnectionResetError()], EndingKind.FAILED, Failure()),
        ([CardDeclined(), CardDeclined()], EndingKind.OK, None),
        ([CircuitOpenError(), CircuitOpenError()], EndingKind.ABANDONED, None),
        ([ConnectionResetError(), CardDeclined()], EndingKind.ERROR, None),
        ([CircuitOpenError(), CardDeclined()], EndingKind.ERROR, None),
    ],
    ids=repr,
)
def test_a_group_is_what_all_its_leaves_are(leaves: list[Exception], kind: EndingKind, failure: Failure | None) -> None:
    ending = Ending(None, ExceptionGroup("", [leaves[0], ExceptionGroup("", leaves[1:])]), FAILURES)

    assert (ending.kind, ending.failure) == (kind, failure)


def test_a_policy_judges_by_its_own_allowlist_if_it_has_one() -> None:
    ending = Ending(None, KeyError(), FAILURES)

    assert ending.by(None) == (EndingKind.ERROR, None)
    assert ending.by(Allowlist(KeyError)) == (EndingKind.FAILED, Failure())
    assert ending.by(Allowlist(answers=(KeyError,))) == (EndingKind.OK, None)
    assert ending.kind is EndingKind.ERROR


def test_a_value_is_good_by_every_allowlist() -> None:
    assert OK.kind is OK.by(None)[0] is OK.by(Allowlist(Exception))[0] is EndingKind.OK
    assert OK.failure is None


def test_without_an_allowlist_nothing_is_a_failure() -> None:
    assert Ending(None, ConnectionError()).kind is EndingKind.ERROR


def test_a_predicate_is_asked_once_however_often_one_looks() -> None:
    asked: list[Exception] = []

    def when(error: Exception) -> bool:
        asked.append(error)
        return True

    ending = Ending(None, ValueError(), Allowlist(when=when))

    assert [ending.kind, ending.kind, ending.failure] == [EndingKind.FAILED, EndingKind.FAILED, Failure()]
    assert len(asked) == 1


def test_a_predicate_that_raises_makes_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    log_once.forget()
    ending = Ending(None, ValueError(), Allowlist(when=lambda error: bool(1 / 0)))

    assert (ending.kind, ending.failure) == (EndingKind.ERROR, None)
    assert "predicate of an allowlist" in caplog.text
