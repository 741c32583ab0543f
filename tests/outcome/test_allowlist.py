"""Allowlists: what they are made of, which exceptions and results are failures, groups, and joins."""

import asyncio
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest

from resilience._outcome.allowlist import Allowlist, Failure, FailureKind
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience.errors import BadResult, CircuitOpenError, RejectedError

TRANSIENT = Failure()
TIMEOUT = Failure(FailureKind.TIMEOUT)
OVERLOAD = Failure(FailureKind.OVERLOAD, retry_after=3.0)


class CardDeclined(ConnectionError):
    """A known answer of a healthy dependency."""


def always(error: object) -> bool:
    return True


def is_503(result: object) -> bool:
    return result == 503


class Judge:
    def __call__(self, error: object) -> bool:
        return True


# What is made of what


@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, BaseException, int, "OSError", None, OSError()]
)
def test_only_exceptions_can_be_listed(kind: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Allowlist(OSError, kind)
    assert str(caught.value) == f"an Allowlist's types must be subclasses of Exception, not {kind!r}"

    with pytest.raises(TypeError) as caught:
        Allowlist(OSError, answers=(kind,))
    assert str(caught.value) == f"answers must be subclasses of Exception, not {kind!r}"


@pytest.mark.parametrize("answers", [[CardDeclined], CardDeclined, None])
def test_answers_are_a_tuple(answers: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Allowlist(answers=answers)

    assert str(caught.value) == f"answers must be a tuple of exception types, not {answers!r}"


@pytest.mark.parametrize("when", [3, "always", (always,), False])
def test_when_is_callable(when: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Allowlist(OSError, when=when)

    assert str(caught.value) == f"when must be a callable that takes the exception, not {when!r}"


@pytest.mark.parametrize("predicate", [3, "is_503", None])
def test_a_predicate_of_results_is_callable(predicate: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Allowlist.of_results(predicate)

    assert str(caught.value) == f"of_results takes a callable that gets the returned value, not {predicate!r}"


@pytest.mark.parametrize("failures", [3, "OSError", None, [OSError], OSError | ValueError])
def test_other_things_are_no_allowlist(failures: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Allowlist.of(failures)

    assert str(caught.value) == (
        f"expected an Allowlist, an exception type, a tuple of exception types or a predicate, not {failures!r}"
    )


@pytest.mark.parametrize("failures", [int, KeyboardInterrupt, (OSError, int)])
def test_of_checks_types_too(failures: Any) -> None:
    with pytest.raises(TypeError, match="an Allowlist's types must be subclasses of Exception, not <class"):
        Allowlist.of(failures)


def test_of_makes_an_allowlist() -> None:
    own = Allowlist(OSError)

    assert Allowlist.of(own) is own
    assert repr(Allowlist.of(OSError)) == "Allowlist(OSError)"
    assert repr(Allowlist.of((OSError, KeyError))) == "Allowlist(OSError, KeyError)"
    assert repr(Allowlist.of(())) == "Allowlist()"
    assert repr(Allowlist.of(always)) == "Allowlist(Exception when always)"


def test_the_repr_tells_all_rules() -> None:
    joined = (
        Allowlist(OSError, answers=(CardDeclined, KeyError))
        | Allowlist(ValueError, TypeError, when=always)
        | Allowlist.of_results(is_503)
        | Judge()
    )

    assert repr(joined) == (
        "Allowlist(OSError, ValueError|TypeError when always, Exception when Judge, results when is_503, "
        "answers=CardDeclined|KeyError)"
    )


# What is a failure


def test_listed_types_and_their_subclasses_are_failures() -> None:
    listed = Allowlist(ConnectionError, KeyError)

    assert listed.classify(ConnectionError()) == TRANSIENT
    assert listed.classify(ConnectionResetError()) == TRANSIENT
    assert listed.classify(KeyError()) == TRANSIENT
    assert listed.classify(OSError()) is None
    assert listed.classify(ValueError()) is None


def test_an_empty_allowlist_lists_nothing() -> None:
    assert Allowlist().classify(ValueError()) is None
    assert Allowlist().classify(None) is None
    assert not Allowlist().lists_results


@pytest.mark.parametrize(
    "outcome", [KeyboardInterrupt(), GeneratorExit(), SystemExit(), asyncio.CancelledError(), BaseException()]
)
def test_what_is_no_exception_is_no_failure(outcome: BaseException) -> None:
    everything = Allowlist(Exception) | always | Allowlist.of_results(always)

    assert everything.classify(outcome) is None
    assert not everything.is_answer(outcome)


@pytest.mark.parametrize("kind", [RejectedError, CircuitOpenError])
def test_a_rejection_is_never_a_failure(kind: type[RejectedError]) -> None:
    assert Allowlist(Exception).classify(kind()) is None
    assert Allowlist(kind, when=always).classify(kind()) is None


def test_a_predicate_narrows_the_types() -> None:
    listed = Allowlist(OSError, when=lambda error: "down" in str(error))

    assert listed.classify(OSError("down")) == TRANSIENT
    assert listed.classify(TimeoutError("down")) == TIMEOUT
    assert listed.classify(OSError("full")) is None
    assert listed.classify(ValueError("down")) is None


def test_a_predicate_is_not_asked_about_other_types() -> None:
    asked: list[Exception] = []
    Allowlist(OSError, when=asked.append).classify(ValueError())

    assert asked == []


@pytest.mark.parametrize(
    ("verdict", "failure"), [(True, TRANSIENT), (False, None), (None, None), (OVERLOAD, OVERLOAD), (1, TRANSIENT)]
)
def test_a_predicate_gives_the_verdict(verdict: Any, failure: Failure | None) -> None:
    assert Allowlist(when=lambda error: verdict).classify(ValueError()) == failure
    assert Allowlist.of_results(lambda result: verdict).classify(503) == failure


def test_what_a_predicate_raises_comes_out() -> None:
    def broken(outcome: object) -> bool:
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        Allowlist(when=broken).classify(ValueError())
    with pytest.raises(LookupError, match="broken"):
        Allowlist.of_results(broken).classify(None)


def test_the_first_verdict_counts() -> None:
    joined = Allowlist(when=lambda error: None) | Allowlist(when=lambda error: OVERLOAD) | Allowlist(when=always)

    assert joined.classify(ValueError()) is OVERLOAD


def test_a_type_counts_before_a_predicate() -> None:
    assert (Allowlist(when=lambda error: OVERLOAD) | TimeoutError).classify(TimeoutError()) == TIMEOUT


def test_answers_are_no_failures() -> None:
    listed = Allowlist(ConnectionError, answers=(CardDeclined,)) | always

    assert listed.classify(CardDeclined()) is None
    assert listed.is_answer(CardDeclined())
    assert listed.classify(ConnectionError()) == TRANSIENT
    assert not listed.is_answer(ConnectionError())


def test_an_exception_that_nobody_lists_is_neither_failure_nor_answer() -> None:
    listed = Allowlist(ConnectionError, answers=(CardDeclined,))

    assert listed.classify(ValueError()) is None
    assert not listed.is_answer(ValueError())


# Results


def test_results_are_judged_by_their_predicate() -> None:
    listed = Allowlist.of_results(is_503)

    assert listed.lists_results
    assert listed.classify(503) == TRANSIENT
    assert listed.classify(200) is None
    assert listed.is_answer(200)
    assert not listed.is_answer(503)
    assert listed.classify(ValueError()) is None


def test_a_bad_result_is_judged_like_the_result() -> None:
    listed = Allowlist(Exception) | Allowlist.of_results(is_503)

    assert listed.classify(BadResult(503)) == TRANSIENT
    assert listed.classify(BadResult(200)) is None
    assert not listed.is_answer(BadResult(503))
    assert listed.is_answer(BadResult(200))


def test_nobody_looks_at_results_without_a_predicate() -> None:
    listed = Allowlist(Exception, when=always)

    assert not listed.lists_results
    assert listed.classify(503) is None
    assert listed.is_answer(503)


# Groups


def test_a_group_is_a_failure_if_all_its_leaves_are() -> None:
    listed = Allowlist(OSError, answers=(CardDeclined,))

    assert listed.classify(ExceptionGroup("", [OSError(), ExceptionGroup("", [ConnectionError()])])) == TRANSIENT
    for other in (ValueError(), CardDeclined(), CircuitOpenError()):
        assert listed.classify(ExceptionGroup("", [OSError(), other])) is None
        assert listed.classify(ExceptionGroup("", [ExceptionGroup("", [other]), OSError()])) is None


def test_a_group_with_more_than_exceptions_is_no_failure() -> None:
    group = BaseExceptionGroup("", [OSError(), KeyboardInterrupt()])

    assert Allowlist(Exception, when=always).classify(group) is None
    assert Allowlist(Exception).classify(group) is None


def test_a_group_may_hold_bad_results() -> None:
    listed = Allowlist.of_results(is_503)

    assert listed.classify(ExceptionGroup("", [BadResult(503)])) == TRANSIENT
    assert listed.classify(ExceptionGroup("", [BadResult(503), BadResult(200)])) is None


def test_a_predicate_sees_the_leaves_and_never_the_group() -> None:
    seen: list[Exception] = []

    def when(error: Exception) -> bool:
        seen.append(error)
        return True

    one, two, three = ValueError(1), ValueError(2), ValueError(3)
    Allowlist(when=when).classify(ExceptionGroup("", [one, ExceptionGroup("", [two]), three]))

    assert seen == [one, two, three]


def test_groups_may_be_nested_deeply() -> None:
    error: Exception = OSError()
    for _ in range(5_000):
        inner: list[Exception] = [error]
        error = ExceptionGroup("", inner)

    assert Allowlist(OSError).classify(error) == TRANSIENT


# Joins


def left(failures: Any) -> Any:
    """Return `failures`: a checker takes `type | Allowlist` for a union of types."""
    return failures


JOINS: list[Callable[[], Allowlist]] = [
    lambda: Allowlist(OSError) | Allowlist(KeyError),
    lambda: Allowlist(OSError) | KeyError,
    lambda: left(OSError) | Allowlist(KeyError),
    lambda: Allowlist() | (OSError, KeyError),
    lambda: (OSError, KeyError) | Allowlist(),
    lambda: Allowlist(OSError) | (lambda error: isinstance(error, KeyError)),
    lambda: (lambda error: isinstance(error, OSError)) | Allowlist(KeyError),
]


@pytest.mark.parametrize("join", JOINS)
def test_what_either_side_lists_is_a_failure(join: Callable[[], Allowlist]) -> None:
    joined = join()

    assert joined.classify(OSError()) == TRANSIENT
    assert joined.classify(KeyError()) == TRANSIENT
    assert joined.classify(ValueError()) is None


def test_what_either_side_calls_an_answer_is_one() -> None:
    for joined in (
        Allowlist(Exception) | Allowlist(answers=(CardDeclined,)),
        Allowlist(answers=(CardDeclined,)) | Exception,
    ):
        assert joined.classify(CardDeclined()) is None
        assert joined.is_answer(CardDeclined())
        assert joined.classify(ConnectionError()) == TRANSIENT


def test_results_and_exceptions_can_be_joined() -> None:
    for joined in (Allowlist.of_results(is_503) | OSError, left(OSError) | Allowlist.of_results(is_503)):
        assert joined.lists_results
        assert joined.classify(503) == TRANSIENT
        assert joined.classify(OSError()) == TRANSIENT
        assert joined.classify(200) is None


def test_either_predicate_of_results_can_find_a_failure() -> None:
    joined = Allowlist.of_results(is_503) | Allowlist.of_results(lambda result: OVERLOAD if result == 429 else None)

    assert joined.classify(503) == TRANSIENT
    assert joined.classify(429) is OVERLOAD
    assert joined.classify(200) is None


def test_a_join_leaves_its_parts_alone() -> None:
    one, two = Allowlist(OSError), Allowlist.of_results(is_503)

    assert repr(one | two) == "Allowlist(OSError, results when is_503)"
    assert repr(one) == "Allowlist(OSError)"
    assert repr(two) == "Allowlist(results when is_503)"


@pytest.mark.parametrize("other", [3, "OSError", None])
def test_a_join_with_anything_else_is_an_error(other: Any) -> None:
    with pytest.raises(TypeError, match="expected an Allowlist"):
        _ = Allowlist(OSError) | other
    with pytest.raises(TypeError, match="expected an Allowlist"):
        _ = other | Allowlist(OSError)


def test_the_network_errors() -> None:
    assert NETWORK_ERRORS.classify(ConnectionResetError()) == TRANSIENT
    assert NETWORK_ERRORS.classify(ConnectionRefusedError()) == Failure(unprocessed=True)
    assert NETWORK_ERRORS.classify(TimeoutError()) == TIMEOUT
    assert NETWORK_ERRORS.classify(OSError()) is None
    assert NETWORK_ERRORS.classify(CircuitOpenError()) is None
    assert not NETWORK_ERRORS.lists_results


@pytest.mark.parametrize(
    ("error", "by_type"), [(ConnectionError(), True), (KeyError(), True), (urllib.error.URLError(OSError()), False)]
)
def test_whether_the_type_alone_decides(error: Exception, by_type: bool) -> None:
    assert NETWORK_ERRORS.is_by_type(error) is by_type
    assert not Allowlist(when=always).is_by_type(error)
