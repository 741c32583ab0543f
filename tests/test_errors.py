"""The errors and warnings: their tree, their attributes, and that copies and pickles keep them."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from resilience.errors import (
    BadResult,
    BulkheadFullError,
    CarriedResult,
    CircuitOpenError,
    DeadlineExceededError,
    LateResult,
    RateLimitedError,
    RejectedError,
    RejectReason,
    ResilienceError,
    ResilienceWarning,
)

REJECTIONS = [RejectedError, CircuitOpenError, BulkheadFullError, RateLimitedError]
WAYS: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol)) for protocol in range(6)),
]


@pytest.mark.parametrize("kind", REJECTIONS)
def test_a_rejection_has_its_policy_and_reason(kind: type[RejectedError]) -> None:
    error = kind("no", policy="breaker", pipeline="payments", reason=RejectReason.OPEN, retry_after=2.5)

    assert str(error) == "no"
    assert error.args == ("no",)
    assert (error.policy, error.pipeline, error.reason, error.retry_after) == ("breaker", "payments", "open", 2.5)
    assert error.unprocessed is True


@pytest.mark.parametrize("kind", REJECTIONS)
def test_a_rejection_needs_no_arguments(kind: type[RejectedError]) -> None:
    error = kind()

    assert str(error) == "the call was rejected"
    assert (error.policy, error.pipeline, error.reason, error.retry_after) == ("", "", None, None)
    assert error.unprocessed is True


def test_a_deadline_says_whether_the_call_was_sent() -> None:
    unsent = DeadlineExceededError("late", unprocessed=True, policy="timeout", pipeline="payments")

    assert (str(unsent), unsent.policy, unsent.pipeline, unsent.unprocessed) == ("late", "timeout", "payments", True)
    assert DeadlineExceededError().unprocessed is False
    assert str(DeadlineExceededError()) == "the deadline has passed"
    assert (DeadlineExceededError().policy, DeadlineExceededError().pipeline) == ("", "")


def test_a_deadline_can_be_caught_as_a_timeout() -> None:
    error = DeadlineExceededError("late")

    assert isinstance(error, TimeoutError)
    assert isinstance(error, ResilienceError)
    assert error.errno is None


def test_the_tree_of_errors() -> None:
    assert ResilienceError.__bases__ == (Exception,)
    assert ResilienceError().unprocessed is False
    assert RejectedError.__bases__ == (ResilienceError,)
    for kind in REJECTIONS[1:]:
        assert kind.__bases__ == (RejectedError,)
    assert not issubclass(RejectedError, TimeoutError)
    assert BadResult.__bases__ == LateResult.__bases__ == (CarriedResult,)
    assert CarriedResult.__bases__ == (Exception,)
    assert ResilienceWarning.__bases__ == (UserWarning,)


def test_the_reasons_are_fixed_words() -> None:
    assert [str(reason) for reason in RejectReason] == [
        *["open", "isolated", "full", "queue_timeout", "abandoned_full", "rate", "cooldown", "draining", "deadline"]
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", REJECTIONS)
def test_a_copied_rejection_keeps_everything(kind: type[RejectedError], way: Callable[[Any], Any]) -> None:
    error = kind("no", policy="breaker", pipeline="payments", reason=RejectReason.ISOLATED, retry_after=2.5)

    twin = way(error)

    assert type(twin) is kind
    assert twin is not error
    assert twin.args == ("no",)
    assert str(twin) == "no"
    assert vars(twin) == vars(error)
    assert twin.reason is RejectReason.ISOLATED
    assert twin.unprocessed is True


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("unprocessed", [True, False])
def test_a_copied_deadline_keeps_everything(unprocessed: bool, way: Callable[[Any], Any]) -> None:
    error = DeadlineExceededError("late", unprocessed=unprocessed, policy="timeout", pipeline="payments", scored=False)

    twin = way(error)

    assert type(twin) is DeadlineExceededError
    assert str(twin) == "late"
    assert vars(twin) == {"unprocessed": unprocessed, "policy": "timeout", "pipeline": "payments", "scored": False}


@pytest.mark.parametrize("way", WAYS)
def test_a_copied_bad_result_keeps_the_result(way: Callable[[Any], Any]) -> None:
    twin = way(BadResult({"status": 503}))

    assert type(twin) is BadResult
    assert twin.result == {"status": 503}


def test_a_bad_result_tells_the_type_and_not_the_value() -> None:
    error = BadResult(["secret"])

    assert error.result == ["secret"]
    assert str(error) == "a bad result of type list"


def test_notes_and_causes_can_be_added() -> None:
    error = CircuitOpenError("no")
    error.add_note("since noon")
    error.__cause__ = cause = ConnectionError("refused")

    assert error.__notes__ == ["since noon"]
    assert error.__cause__ is cause
