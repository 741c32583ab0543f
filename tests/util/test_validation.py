"""The checks of arguments: what they return, and the errors that they raise."""

import math
from enum import StrEnum
from typing import Any

import pytest

from resilience import Bulkhead, CircuitBreaker, Retry, Timeout
from resilience._util import validation


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (0, {}),
        (0.0, {}),
        (7, {}),
        (1e308, {}),
        (1, {"low": 1.0}),
        (1.5, {"low": 1.0, "above": True}),
        (3, {"high": 3.0}),
        (-2, {"low": -2.0, "high": -1.0}),
    ],
)
def test_a_number_in_range_becomes_a_float(value: float, options: dict[str, Any]) -> None:
    result = validation.number("wait", value, **options)

    assert result == value
    assert type(result) is float


@pytest.mark.parametrize("value", [True, False, None, "1", "", b"1", [1], 1j])
def test_what_is_no_number_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        validation.number("wait", value)

    assert str(caught.value) == f"wait must be a number >= 0, not {value!r}"


@pytest.mark.parametrize(
    ("value", "options", "limits"),
    [
        (-1, {}, ">= 0"),
        (-1e-9, {}, ">= 0"),
        (math.nan, {}, ">= 0"),
        (math.inf, {}, ">= 0"),
        (-math.inf, {}, ">= 0"),
        (0, {"above": True}, "> 0"),
        (0.5, {"low": 0.5, "above": True}, "> 0.5"),
        (0.9, {"low": 1.0}, ">= 1"),
        (1.1, {"high": 1.0}, ">= 0 and <= 1"),
        (0, {"above": True, "high": 1.0}, "> 0 and <= 1"),
        (math.nan, {"above": True, "high": 1.0}, "> 0 and <= 1"),
    ],
)
def test_a_number_out_of_range_is_a_value_error(value: float, options: dict[str, Any], limits: str) -> None:
    with pytest.raises(ValueError, match="wait") as caught:
        validation.number("wait", value, **options)

    assert str(caught.value) == f"wait must be a number {limits}, not {value!r}"


def test_numbers_too_large_for_a_float_are_refused() -> None:
    with pytest.raises(ValueError, match="x must be a number"):
        validation.number("x", 10**400)


@pytest.mark.parametrize(("value", "low", "high"), [(1, 1, None), (10**30, 1, None), (0, 0, 0), (5, 1, 5), (-3, -3, 0)])
def test_an_integer_in_range_stays_itself(value: int, low: int, high: int | None) -> None:
    assert validation.integer("limit", value, low=low, high=high) == value


@pytest.mark.parametrize("value", [True, False, None, 1.0, "1", math.nan])
def test_what_is_no_integer_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        validation.integer("limit", value, low=0)

    assert str(caught.value) == f"limit must be an integer >= 0, not {value!r}"


@pytest.mark.parametrize(
    ("value", "low", "high", "limits"),
    [(0, 1, None, ">= 1"), (-1, 0, 5, "from 0 to 5"), (6, 0, 5, "from 0 to 5")],
)
def test_an_integer_out_of_range_is_a_value_error(value: int, low: int, high: int | None, limits: str) -> None:
    with pytest.raises(ValueError, match="limit") as caught:
        validation.integer("limit", value, low=low, high=high)

    assert str(caught.value) == f"limit must be an integer {limits}, not {value}"


def test_a_type_error_of_an_integer_names_both_limits() -> None:
    with pytest.raises(TypeError) as caught:
        validation.integer("limit", "2", low=1, high=3)

    assert str(caught.value) == "limit must be an integer from 1 to 3, not '2'"


def test_a_flag_stays_itself() -> None:
    assert validation.flag("idempotent", True) is True
    assert validation.flag("idempotent", False) is False


@pytest.mark.parametrize("value", [0, 1, None, "yes", 1.0])
def test_what_is_no_flag_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        validation.flag("idempotent", value)

    assert str(caught.value) == f"idempotent must be True or False, not {value!r}"


def test_a_text_stays_itself() -> None:
    assert validation.text("name", " ") == " "
    assert validation.text("name", "payments") == "payments"


@pytest.mark.parametrize("value", [None, b"payments", 3, ["payments"]])
def test_what_is_no_text_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        validation.text("name", value)

    assert str(caught.value) == f"name must be a string, not {value!r}"


def test_an_empty_text_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"\Aname must not be empty\Z"):
        validation.text("name", "")


@pytest.mark.parametrize("value", ["green", Colour.GREEN])
def test_a_choice_becomes_a_member(value: str) -> None:
    assert validation.choice("colour", value, Colour) is Colour.GREEN


@pytest.mark.parametrize("value", [None, 1, b"red"])
def test_a_choice_that_is_no_string_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        validation.choice("colour", value, Colour)

    assert str(caught.value) == f'colour must be one of "red", "green", not {value!r}'


@pytest.mark.parametrize("value", ["", "RED", "blue"])
def test_a_choice_that_nobody_offers_is_a_value_error(value: str) -> None:
    with pytest.raises(ValueError, match="colour") as caught:
        validation.choice("colour", value, Colour)

    assert str(caught.value) == f'colour must be one of "red", "green", not {value!r}'
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("policy", [Retry, Timeout, Bulkhead, CircuitBreaker])
def test_a_policy_that_decorates_without_parentheses_says_so(policy: Any) -> None:
    def guarded() -> None: ...

    with pytest.raises(TypeError, match=r"write parentheses, as in @Retry\(\)"):
        policy(guarded)
