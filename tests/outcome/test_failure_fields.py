"""The fields of a Failure, and how they are checked."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import Failure, FailureKind


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
