"""Hints in the bodies of responses: problem details, and google.rpc.Status in JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from resilience._outcome.problem_bodies import MOST_BYTES, hints_in_body
from resilience._outcome.rate_limit_fields import LONGEST
from resilience._outcome.server_hints import NO_HINTS, Hints

JSON = "application/json"
HUGE = "9" * 400
HINT = b'{"retryAfter": 7}'
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def hints(document: object) -> Hints:
    return hints_in_body(JSON, json.dumps(document).encode())


def status(*details: object) -> dict[str, Any]:
    return {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": list(details)}}


def retry_info(delay: object) -> dict[str, object]:
    return {"@type": RETRY_INFO, "retryDelay": delay}


@pytest.mark.parametrize(
    "content_type",
    [
        *(JSON, "application/problem+json", "Application/JSON", "application/json; charset=utf-8"),
        *("application/problem+json;charset=UTF-8", " application/json ; charset=utf-8", "application/json;"),
    ],
)
def test_the_types_that_are_read(content_type: str) -> None:
    assert hints_in_body(content_type, HINT) == Hints(7.0)


@pytest.mark.parametrize(
    "content_type",
    ["", ";", "text/plain", "text/html", "application/jsonp", "application/xml", "json", "text/json; application/json"],
)
def test_other_types_are_ignored(content_type: str) -> None:
    assert hints_in_body(content_type, HINT) == NO_HINTS


@pytest.mark.parametrize("name", ["retryAfter", "retry_after"])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), ("0", 0.0), ("1.5", 1.5), ("1e2", 100.0), ("1E-1", 0.1), ("-0", 0.0), ('"7"', 7.0), ('"1.5"', 1.5),
        (HUGE, LONGEST), ("9" * 5000, LONGEST), ("1e999", LONGEST), (f'"{HUGE}"', LONGEST),
        ("-1", None), ("-0.5", None), (f"-{HUGE}", None), ("-1e999", None), ("NaN", None), ("Infinity", None),
        ("-Infinity", None), ("null", None), ("true", None), ("false", None), ("[7]", None), ('{"seconds": 7}', None),
        ('""', None), ('"-1"', None), ('"soon"', None), ('"nan"', None), ('"inf"', None), ('"7s"', None),
        ('" 7"', None), ('"1e2"', None), ('"1, 7"', None), ('"\u0663"', None),
        ('"Wed, 21 Oct 2026 07:28:30 GMT"', None),
    ],
)  # fmt: skip
def test_the_time(name: str, value: str, seconds: float | None) -> None:
    for body in (f'{{"{name}": {value}}}', f'{{"extensions": {{"{name}": {value}}}}}'):
        assert hints_in_body("application/problem+json", body.encode()) == Hints(seconds)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(True, True), (False, False), (None, None), (1, None), (0, None), ("true", None), ("false", None), ([], None)],
)
def test_the_verdict(value: object, verdict: bool | None) -> None:
    assert hints({"retryable": value, "retryAfter": 7}) == Hints(7.0, verdict)
    assert hints({"extensions": {"retryable": value}}) == Hints(None, verdict)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"retryAfter": 1, "retry_after": 2, "extensions": {"retryAfter": 3}, **status(retry_info("4s"))}, Hints(1)),
        ({"retryAfter": -1, "retry_after": 2, "extensions": {"retryAfter": 3}}, Hints(2)),
        ({"retryAfter": "soon", "extensions": {"retryAfter": 3, "retry_after": 2}}, Hints(3)),
        ({"extensions": {"retry_after": 3}, **status(retry_info("4s"))}, Hints(3)),
        ({"extensions": {"retry_after": None}, **status(retry_info("4s"))}, Hints(4)),
        ({"retryable": False, "extensions": {"retryable": True, "retryAfter": 3}}, Hints(3, False)),
        ({"retryable": None, "extensions": {"retryable": True}}, Hints(None, True)),
        ({"retryable": True, **status(retry_info("4s"))}, Hints(4, True)),
        ({"extensions": [{"retryAfter": 3}], "retryable": True}, Hints(None, True)),
        ({"extensions": {"extensions": {"retryAfter": 3}}}, NO_HINTS),
        ({"error": {"retryAfter": 3, "retryable": True}}, NO_HINTS),
        ({"RetryAfter": 3, "retry-after": 3, "Retryable": True}, NO_HINTS),
        ({"title": "Out of quota", "status": 429}, NO_HINTS),
        ({}, NO_HINTS),
    ],
)
def test_the_first_usable_hint_counts(document: object, expected: Hints) -> None:
    assert hints(document) == expected


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ("53s", 53.0), ("1.5s", 1.5), ("0s", 0.0), ("0.000000001s", 1e-9), (f"{HUGE}s", LONGEST),
        ("-1s", None), ("53", None), ("s", None), ("", None), (".5s", None), ("1.s", None), ("1.0000000001s", None),
        ("1m", None), ("1ms", None), ("53S", None), (" 53s", None), ("NaNs", None), ("1e3s", None), (53, None),
        (53.5, None), (None, None), (True, None), (["53s"], None), ({"seconds": 53}, None),
    ],
)  # fmt: skip
def test_retry_info(delay: object, seconds: float | None) -> None:
    assert hints(status(retry_info(delay))) == Hints(seconds)


def test_a_whole_answer_of_google() -> None:
    body = b"""{
      "error": {
        "code": 429,
        "message": "Resource has been exhausted (e.g. check quota).",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
          {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaMetric": "requests"}]},
          {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "53.123456789s"}
        ]
      }
    }"""

    assert hints_in_body("application/json; charset=UTF-8", body) == Hints(53.123456789)


@pytest.mark.parametrize(
    "document",
    [
        status(),
        status(None, 7, "53s", [retry_info("53s")]),
        status({"@type": RETRY_INFO}),
        status({"retryDelay": "53s"}),
        status({"@type": [RETRY_INFO], "retryDelay": "53s"}),
        status({"@type": f"{RETRY_INFO}2", "retryDelay": "53s"}),
        status({"@type": "type.googleapis.com/google.rpc.Help", "retryDelay": "53s"}),
        {"error": {"details": retry_info("53s")}},
        {"error": {"details": {"0": retry_info("53s")}}},
        {"error": [retry_info("53s")]},
        {"error": "quota"},
        {"error": None},
        {"details": [retry_info("53s")]},
    ],
)
def test_what_is_no_retry_info_is_ignored(document: object) -> None:
    assert hints(document) == NO_HINTS


def test_the_first_valid_delay_counts() -> None:
    assert hints(status(retry_info("soon"), retry_info("2s"), retry_info("9s"))) == Hints(2.0)
    assert hints(status({"@type": "google.rpc.RetryInfo", "retryDelay": "3s"})) == Hints(3.0)


@pytest.mark.parametrize("size", [len(HINT), MOST_BYTES - 1, MOST_BYTES])
def test_a_body_up_to_the_bound_is_read(size: int) -> None:
    assert hints_in_body(JSON, HINT.ljust(size)) == Hints(7.0)


def test_a_longer_body_is_ignored() -> None:
    assert MOST_BYTES == 64 * 1024
    assert hints_in_body(JSON, HINT.ljust(MOST_BYTES + 1)) == NO_HINTS


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"null", b"7", b'"retryAfter"', b"true", b"[]", b'[{"retryAfter": 7}]', b"{", b"}", b"\x00"),
        *(b"\xff", b"{'retryAfter': 7}", b'{"retryAfter": 7', b'{"retryAfter": 7,}', b'{"retryAfter": 7} x'),
        *(b'{"retryAfter": 07}', b'{"retryAfter": +7}', b'{"retryAfter": .5}', b'{"retryAfter": 7, "x": NaN}'),
        *(b'{"retryAfter": "\xff"}', b"<html>retryAfter</html>", b'data: {"retryAfter": 7}'),
        *(b'{"retryAfter": 7}\n{"retryAfter": 7}', b'{"retryAfter": 7} {}'),
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_ignored(body: bytes) -> None:
    assert hints_in_body(JSON, body) == NO_HINTS


@pytest.mark.parametrize(
    ("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'{"error":', b"}"), (b'{"extensions":', b"}")]
)
@pytest.mark.parametrize("is_closed", [True, False])
def test_a_deeply_nested_body_is_ignored(opening: bytes, closing: bytes, is_closed: bool) -> None:
    depth = MOST_BYTES // len(opening + closing) - 20
    body = b'{"retryAfter": 7, "x": ' + opening * depth + (b"7" + closing * depth + b"}") * is_closed

    assert len(body) <= MOST_BYTES
    assert hints_in_body(JSON, body) in (NO_HINTS, Hints(7.0) if is_closed else NO_HINTS)


@pytest.mark.parametrize("member", ["retryAfter", "retryable", "extensions", "error"])
def test_a_nested_member_is_ignored(member: str) -> None:
    body = f'{{"{member}": {"[" * 500}{"]" * 500}, "retry_after": 7}}'

    assert hints_in_body(JSON, body.encode()) == Hints(7.0)


def test_json_is_imported_only_for_a_body_that_is_read() -> None:
    program = f"""
import sys
from resilience._outcome.problem_bodies import hints_in_body
assert hints_in_body("text/plain", {HINT!r}).retry_after is None
sys.modules["json"] = None
try:
    hints_in_body("application/json", {HINT!r})
except ImportError:
    print("imported where it is needed")
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert output == "imported where it is needed\n"


def test_a_status_in_an_array_is_read_too() -> None:
    status = {"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]}}

    assert hints_in_body(JSON, json.dumps([status]).encode()) == Hints(7.0)
    assert hints_in_body(JSON, b"[]") == NO_HINTS
    assert hints_in_body(JSON, b"[1]") == NO_HINTS
