"""Which methods are idempotent, and which bypass the pipeline: patterns, predicates, and descriptors."""

import importlib
import re
from typing import Any

import pytest

from resilience import Retry
from resilience._util import log_once
from resilience.grpc._errors import ResilienceRpcError
from resilience.grpc._guard import Guard
from resilience.grpc._methods import CALLS_TO_WATCH, Patterns, declared_idempotent, matcher

descriptor_pb2: Any = importlib.import_module("google.protobuf.descriptor_pb2")  # they have no types
descriptor_pool: Any = importlib.import_module("google.protobuf.descriptor_pool")


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


def test_a_name_that_no_pattern_has_is_left_to_the_descriptor() -> None:
    assert matcher(["/shop.Shop/Get"])[0]("/shop.Shop/Buy") is None


def described(package: str, level: int) -> str:
    """Register a service whose method has an idempotency level, and return the name of the method."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.message_type.add(name="Empty")
    service = file.service.add(name="Shop")
    method = service.method.add(name="Get", input_type=f".{package}.Empty", output_type=f".{package}.Empty")
    if level:
        method.options.idempotency_level = level
    descriptor_pool.Default().Add(file)
    return f"/{package}.Shop/Get"


@pytest.mark.parametrize(
    ("level", "declared"),
    [(0, (False, False)), (1, (True, True)), (2, (True, False))],
    ids=["unknown", "no_side_effects", "idempotent"],
)
def test_the_descriptor_of_a_method_may_declare_it_idempotent(level: int, declared: tuple[bool, bool]) -> None:
    assert declared_idempotent(described(f"level{level}", level)) == declared


@pytest.mark.parametrize("method", ["/nowhere.Shop/Get", "nonsense", "", "/a.b/c/d"])
def test_a_method_without_a_descriptor_is_not_declared(method: str) -> None:
    assert declared_idempotent(method) == (False, False)


def test_what_is_said_at_the_channel_takes_precedence_over_the_descriptor() -> None:
    method = described("precedence", 1)

    def options(idempotent: Any) -> tuple[bool | None, bool]:
        known = Guard(Retry(), idempotent, ResilienceRpcError).options(method)
        return known.idempotent, known.hedgeable

    assert options(None) == options("/other.Shop/*") == (True, True)
    assert options(False) == options(lambda method: False) == (False, False)
    assert Guard(Retry().bind(idempotent=False), None, ResilienceRpcError).options(method).idempotent is False


def test_a_pattern_that_matches_no_method_is_logged_once_after_some_calls(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard(Retry(), ["/shop.Shop/Gte*", "*/Get"], ResilienceRpcError)
    for number in range(CALLS_TO_WATCH):
        guard.options(f"/shop.Shop/{'Get' if number % 2 else 'Buy'}")
    assert caplog.text == ""
    for _ in range(3):
        guard.options("/shop.Shop/Get")

    (record,) = caplog.records
    assert "idempotent has '/shop.Shop/Gte*', which no method has matched in the first 200 calls" in record.message
    assert "/shop.Shop/Buy, /shop.Shop/Get" in record.message


def test_nothing_is_logged_where_each_pattern_has_matched(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard(Retry(), ["/shop.Shop/G*"], ResilienceRpcError)
    for _ in range(CALLS_TO_WATCH + 5):
        guard.options("/shop.Shop/Get")
    assert caplog.text == ""


def test_health_checks_bypass_the_pipeline_unless_others_are_named() -> None:
    check = "/grpc.health.v1.Health/Check"
    assert Guard(Retry(), None, ResilienceRpcError).options(check).bypasses
    assert not Guard(Retry(), None, ResilienceRpcError).options("/shop.Shop/Get").bypasses
    guard = Guard(Retry(), None, ResilienceRpcError, unguarded=["/shop.Shop/Get"])
    assert guard.options("/shop.Shop/Get").bypasses
    assert not guard.options(check).bypasses
    assert not Guard(Retry(), None, ResilienceRpcError, unguarded=()).options(check).bypasses


@pytest.mark.parametrize(("unguarded", "error"), [("Get*", ValueError), ([7], TypeError)])
def test_unguarded_takes_names_and_patterns(unguarded: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="unguarded"):
        Patterns("unguarded", unguarded)
