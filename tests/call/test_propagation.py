"""Tests of the headers that carry a deadline and an attempt number to another process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._call.propagation import (
    ATTEMPT_COUNT,
    LONGEST,
    MOST_ATTEMPTS,
    REMAINING_TIME,
    attempt_count,
    headers_for,
    remaining_time,
)
from resilience._util.clock import FOREVER

NO_NUMBERS = [
    *("", " ", "-1", "-0", "+5", "1.5", "1e3", "0x10", "1_000", " 5", "5 ", "5\n", "5, 6", "5ms"),
    *("nan", "NaN", "inf", "Infinity", "soon", "None", "\u0665", "\u00b2", "\uff15", "5\u0000", "9" * 400),
]


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_not_a_string_of_ascii_digits_is_ignored(value: str) -> None:
    assert remaining_time(value) is None
    assert attempt_count(value) is None
    assert remaining_time(value.encode()) is None
    assert attempt_count(value.encode()) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("00", 0.0),
        ("1", 0.001),
        ("0250", 0.25),
        ("1500", 1.5),
        ("86400000", 86_400.0),
        ("86400001", None),
        ("99999999", None),
        ("000000250", None),  # nine digits are more than a day has
    ],
)
def test_a_remaining_time_is_from_zero_to_one_day(value: str, seconds: float | None) -> None:
    assert remaining_time(value) == seconds
    assert remaining_time(value.encode()) == seconds


@pytest.mark.parametrize(
    ("value", "attempt"),
    [("0", None), ("0000", None), ("1", 1), ("02", 2), ("9999", 9999), ("10000", None), ("00001", None)],
)
def test_an_attempt_number_is_from_one_to_9999(value: str, attempt: int | None) -> None:
    assert attempt_count(value) == attempt
    assert attempt_count(value.encode()) == attempt


@pytest.mark.parametrize(
    ("deadline", "milliseconds"),
    [
        (100.25, "250"),
        (100.0019, "1"),
        (100.0009, "0"),
        (100.0, "0"),
        (99.0, "0"),
        (-FOREVER, "0"),
        (100.0 + LONGEST / 1000, str(LONGEST)),
    ],
)
def test_the_remaining_time_is_in_whole_milliseconds_and_never_negative(deadline: float, milliseconds: str) -> None:
    assert headers_for(deadline, 3, 100.0) == {REMAINING_TIME: milliseconds, ATTEMPT_COUNT: "3"}


@pytest.mark.parametrize("deadline", [FOREVER, 100.001 + LONGEST / 1000, 1e300])
def test_without_a_deadline_that_would_be_believed_only_the_attempt_is_sent(deadline: float) -> None:
    assert headers_for(deadline, 1, 100.0) == {ATTEMPT_COUNT: "1"}


@given(remaining=st.floats(-1e6, LONGEST / 1000), attempt=st.integers(1, MOST_ATTEMPTS), now=st.floats(0, 1e6))
def test_what_is_sent_is_believed_and_is_at_most_a_millisecond_short(
    remaining: float, attempt: int, now: float
) -> None:
    headers = headers_for(now + remaining, attempt, now)
    left = max(0.0, (now + remaining) - now)
    read = remaining_time(headers.get(REMAINING_TIME, ""))

    assert attempt_count(headers[ATTEMPT_COUNT]) == attempt
    if read is None:  # rounding has made it longer than a day
        assert left * 1000 > LONGEST
    else:
        assert read <= left + 1e-9
        assert left - read < 0.001 + 1e-9


def test_the_names_are_those_of_envoy() -> None:
    assert (REMAINING_TIME, ATTEMPT_COUNT) == ("x-envoy-expected-rq-timeout-ms", "x-envoy-attempt-count")
