"""The values of labels: short, bounded in number, and possible to encode."""

from __future__ import annotations

import pytest

from resilience._util.label_values import LONGEST, OVERFLOW, Bounded, label_text
from tests.support.threads import in_threads


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("quotes", "quotes"),
        ("d\u00e9pôt \u2603", "d\u00e9pôt \u2603"),
        ("a\nb", "a\nb"),
        ("file \udc80\ud800", "file ??"),
        ("x" * 10_000, "x" * LONGEST),
        ("\u2603" * 10_000, "\u2603" * LONGEST),
    ],
    ids=range(6),
)
def test_the_text_of_a_name(name: str, text: str) -> None:
    assert label_text(name) == text
    assert Bounded(1).of(name) == text
    assert label_text(name).encode()


def test_the_first_values_are_kept_and_the_rest_overflow() -> None:
    bounded = Bounded(2)

    assert [bounded.of(one) for one in ("a", "b", "c", "a", "d", "", OVERFLOW)] == [
        *("a", "b", OVERFLOW, "a", OVERFLOW, "", OVERFLOW),
    ]


@pytest.mark.usefixtures("frequent_switches")
def test_threads_do_not_exceed_the_number() -> None:
    bounded = Bounded(10)

    found = in_threads(8, lambda index: {bounded.of(f"{index}-{number}") for number in range(50)})

    assert len(set.union(*found)) == 11
