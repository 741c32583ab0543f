"""One failure: its checks, what a type of exception tells, and what the failures of a group are together."""

import copy
import dataclasses
import math
import pickle
from typing import Any

import pytest

from resilience._outcome.allowlist import Allowlist
from resilience._outcome.failure import Failure, FailureKind, default_failure, leaves
from resilience.errors import DeadlineExceededError

TRANSIENT = Failure()
TIMEOUT = Failure(FailureKind.TIMEOUT)


def test_a_failure_is_transient_unless_it_says_more() -> None:
    failure = Failure()

    assert dataclasses.astuple(failure) == (FailureKind.TRANSIENT, None, False, True, True, False)


@pytest.mark.parametrize("hint", [0, 0.0, 2, 2.5, 1e308, None])
def test_a_good_hint_is_kept(hint: float | None) -> None:
    assert Failure(retry_after=hint).retry_after == hint


@pytest.mark.parametrize("hint", [math.nan, -math.nan, math.inf, -math.inf, -1, -1e-9, "3", b"3", [3], 3j])
def test_a_hint_that_cannot_be_obeyed_is_dropped(hint: Any) -> None:
    failure = Failure(FailureKind.OVERLOAD, hint, unprocessed=True, retryable=False, counted=False)

    assert dataclasses.astuple(failure) == (FailureKind.OVERLOAD, None, True, False, False, False)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"kind": "bogus"}, ValueError),
        ({"kind": None}, TypeError),
        ({"unprocessed": "yes"}, TypeError),
        ({"retryable": 1}, TypeError),
        ({"counted": None}, TypeError),
    ],
)
def test_a_failure_is_checked(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        Failure(**wrong)


def test_a_hint_of_true_is_garbage() -> None:
    assert Failure(FailureKind.OVERLOAD, True).retry_after is None


def test_a_failure_is_a_value() -> None:
    failure = Failure(FailureKind.OVERLOAD, retry_after=3.0, unprocessed=True)

    assert failure == Failure(FailureKind.OVERLOAD, 3.0, unprocessed=True)
    assert hash(failure) == hash(Failure(FailureKind.OVERLOAD, 3.0, unprocessed=True))
    assert pickle.loads(pickle.dumps(failure)) == copy.copy(failure) == failure
    field = "retryable"
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(failure, field, False)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (TimeoutError(), TIMEOUT),
        (DeadlineExceededError(), TIMEOUT),
        (ConnectionRefusedError(), Failure(unprocessed=True)),
        (ConnectionResetError(), TRANSIENT),
        (ValueError(), TRANSIENT),
    ],
)
def test_what_a_type_tells(error: Exception, failure: Failure) -> None:
    assert default_failure(error) == failure
    assert Allowlist(Exception).classify(error) == failure


def of_group(*failures: Failure) -> Failure | None:
    table = {str(number): failure for number, failure in enumerate(failures)}
    return Allowlist(when=lambda error: table[str(error)]).classify(
        ExceptionGroup("", [ValueError(number) for number in table])
    )


@pytest.mark.parametrize(
    ("kinds", "worst"),
    [
        ((FailureKind.TRANSIENT,), FailureKind.TRANSIENT),
        ((FailureKind.TIMEOUT, FailureKind.TRANSIENT), FailureKind.TIMEOUT),
        ((FailureKind.TRANSIENT, FailureKind.TIMEOUT), FailureKind.TIMEOUT),
        ((FailureKind.OVERLOAD, FailureKind.TIMEOUT), FailureKind.OVERLOAD),
        ((FailureKind.TIMEOUT, FailureKind.OVERLOAD, FailureKind.TRANSIENT), FailureKind.OVERLOAD),
    ],
)
def test_a_group_is_of_the_worst_kind(kinds: tuple[FailureKind, ...], worst: FailureKind) -> None:
    assert of_group(*(Failure(kind) for kind in kinds)) == Failure(worst)


def test_a_group_waits_for_the_longest_hint() -> None:
    assert of_group(Failure(retry_after=1.0), Failure(), Failure(retry_after=3.0)) == Failure(retry_after=3.0)
    assert of_group(Failure(retry_after=0.0), Failure()) == Failure(retry_after=0.0)
    assert of_group(Failure(), Failure()) == Failure()


def test_a_group_is_unprocessed_and_retryable_only_as_a_whole() -> None:
    unprocessed, final = Failure(unprocessed=True), Failure(retryable=False)

    assert of_group(unprocessed, unprocessed) == unprocessed
    assert of_group(unprocessed, Failure()) == Failure()
    assert of_group(final, final) == final
    assert of_group(Failure(), final) == final


def test_a_group_counts_if_any_of_it_does() -> None:
    uncounted = Failure(counted=False)

    assert of_group(uncounted, uncounted) == uncounted
    assert of_group(uncounted, Failure()) == Failure()


def test_the_leaves_of_an_error() -> None:
    one, two, three, four = ValueError(1), KeyboardInterrupt(2), ValueError(3), ValueError(4)
    tree = BaseExceptionGroup("", [one, BaseExceptionGroup("", [two, ExceptionGroup("", [three])]), four])

    assert list(leaves(one)) == [one]
    assert list(leaves(tree)) == [one, two, three, four]
