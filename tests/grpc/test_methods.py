"""Which methods are idempotent, and which bypass the pipeline: patterns, predicates, and descriptors."""

import re
from typing import Any

import pytest

from resilience._util import log_once
from resilience.grpc._methods import matcher


@pytest.mark.parametrize(
    ("idempotent", "expected"),
    [
        (None, [None, None, None]),
        (True, [True, True, True]),
        (False, [False, False, False]),
        ("/shop.Shop/Get*", [True, True, None]),
        (["/shop.Shop/GetPrice", "*/Buy"], [True, None, True]),
        (lambda method: method.endswith("y"), [False, False, True]),
    ],
)
def test_methods_are_matched(idempotent: Any, expected: list[bool | None]) -> None:
    is_idempotent, _ = matcher(idempotent)

    assert [is_idempotent(f"/shop.Shop/{name}") for name in ("GetPrice", "GetItem", "Buy")] == expected


def test_a_predicate_that_raises_means_no(caplog: pytest.LogCaptureFixture) -> None:
    assert matcher(lambda method: 1 / 0)[0]("/shop.Shop/Get") is False
    assert "idempotent predicate" in caplog.text


@pytest.mark.parametrize("answer", [1, "yes", object(), re.match("a", "a"), (x for x in "a")])
def test_a_predicate_that_returns_no_bool_means_no(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    log_once.forget()

    assert matcher(lambda method: answer)[0]("/shop.Shop/Get") is False
    assert "what the idempotent predicate returns must be True or False" in caplog.text


def test_a_predicate_that_does_not_know_means_no(caplog: pytest.LogCaptureFixture) -> None:
    assert matcher(lambda method: None)[0]("/shop.Shop/Get") is False
    assert caplog.text == ""


async def later(method: str) -> bool:
    return True


class Later:
    async def __call__(self, method: str) -> bool:
        return True


@pytest.mark.parametrize(
    ("idempotent", "error"),
    [
        *[(7, TypeError), ([7], TypeError), (b"/shop.Shop/Get", TypeError)],
        *[({"/shop.Shop/Put": False}, TypeError), (later, TypeError), (Later(), TypeError)],
        *[("Get*", ValueError), ("/shop.Shop", ValueError), ("/shop.Shop/", ValueError), ("", ValueError)],
        *[(["/shop.Shop/Get", "/shop.Shop"], ValueError), ("[/]shop.Shop/Get", ValueError)],
    ],
)
def test_what_can_match_nothing_is_refused(idempotent: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="idempotent"):
        matcher(idempotent)


@pytest.mark.parametrize("pattern", ["*", "*/Get", "/*", "/shop.*", "/shop.Shop/Ge?", "/shop.Shop/[Gg]et", "*/G*"])
def test_patterns_with_wildcards_are_taken(pattern: str) -> None:
    assert matcher(pattern)[0]("/shop.Shop/Get") is True
