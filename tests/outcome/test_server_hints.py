"""Retry-After and its kin, from the headers of any client."""

from __future__ import annotations

import email.message
import importlib
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest

from resilience import Hint
from resilience._outcome.server_hints import LONGEST, NO_HINTS, Hints, hints_of, quota_of, seconds_in

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
EPOCH = 1792567680
"""The same as a number of seconds."""
OTHER_FAMILY = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9"}
OPENAI = {"X-RateLimit-Remaining-Requests": "5", "X-RateLimit-Reset-Requests": "6m0s"}
ANTHROPIC = {
    "Date": DATE,
    "Anthropic-RateLimit-Tokens-Remaining": "0",
    "Anthropic-RateLimit-Tokens-Reset": "2026-10-21T07:28:30Z",
}


def test_the_date_and_the_number_are_the_same() -> None:
    assert hints_of({"Date": DATE, "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(EPOCH)}, 429).retry_after == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0), ("7", 7.0), ("1.5", 1.5), (" 3 ", 3.0), ("1, 7", 7.0), ("7,1", 7.0), ("\t2", 2.0),
        ("", None), ("-1", None), ("nan", None), ("inf", None), ("soon", None), ("1e3", None), ("0x10", None),
        ("1_000", None), ("+5", None), ("٣", None), ("1.", None), (".5", None), ("1, soon", None), ("soon, 1", None),
        ("1, -7", None), ("9" * 400, LONGEST), ("1, " + "9" * 400, LONGEST), ("1; 7", None), ("7s", None), (",", None),
    ],
)  # fmt: skip
def test_seconds(value: str, seconds: float | None) -> None:
    assert seconds_in(value) == seconds
    assert seconds_in(value, DATE) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", 30.0),
        ("Wed Oct 21 07:28:30 2026", 30.0),
        ("Wed, 21 Oct 2026 09:28:30 +0200", 30.0),
        (DATE, 0.0),
        ("Wed, 21 Oct 2026 07:27:59 GMT", None),
        ("Wed, 21 Oct 2026", None),
        ("Wed, 21 Oct 99999999 07:28:30 GMT", None),
        ("Wed, 99 Oct 2026 07:28:30 GMT", None),
        ("2026-10-21T07:28:30Z", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT, Wed, 21 Oct 2026 07:28:50 GMT", 50.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT, 70", 70.0),
    ],
)
def test_a_date_counts_from_that_of_the_response(value: str, seconds: float | None) -> None:
    assert seconds_in(value, DATE) == seconds
    assert seconds_in(value, "Wed Oct 21 07:28:00 2026") == seconds


@pytest.mark.parametrize("date", [None, "", "yesterday", "Wed, 21 Oct 99999999 07:28:00 GMT"])
def test_without_the_date_of_the_response_a_date_is_no_hint(date: str | None) -> None:
    assert seconds_in("Wed, 21 Oct 2026 07:28:30 GMT", date) is None
    assert seconds_in("7", date) == 7.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250", "x-ms-retry-after-ms": "500", "Retry-After": "7"}, 0.25),
        ({"x-ms-retry-after-ms": "500", "Retry-After": "7"}, 0.5),
        ({"retry-after-ms": "soon", "x-ms-retry-after-ms": "-1", "Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "1500, 2500"}, 2.5),
        ({"retry-after-ms": "0.5"}, 0.0005),
        ({"retry-after-ms": "9" * 400}, LONGEST),
        ({"Retry-After": "7", "RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, 7.0),
        ({"Retry-After": "soon", "RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, 30.0),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "30", **OTHER_FAMILY}, 30.0),
        ({"RateLimit-Remaining": "5", "RateLimit-Reset": "30", **OTHER_FAMILY}, 9.0),
        ({"Retry-After": "7", "RateLimit": '"default";r=0;t=30'}, 7.0),
        ({"retry-after-ms": "250", "RateLimit": '"default";r=0;t=30'}, 0.25),
        ({"RateLimit": '"default";r=0;t=30', **OTHER_FAMILY}, 30.0),
        ({"RateLimit": '"default";r=5;t=30', **OTHER_FAMILY}, 9.0),
        ({"RateLimit": '"default";r=0;t=soon', **OTHER_FAMILY}, 9.0),
        ({"RateLimit": '"default";r=50;t=30, "daily";r=0;t=3600'}, 3600.0),
        ({"RateLimit": '"default";r=5;t=30'}, None),
        (OPENAI, None),
        ({**OPENAI, "X-RateLimit-Remaining-Tokens": "0", "X-RateLimit-Reset-Tokens": "1.5s"}, 1.5),
        ({**OPENAI, **ANTHROPIC}, 30.0),
        ({**OTHER_FAMILY, "Age": "5"}, None),
        ({**OTHER_FAMILY, "Age": "5", "Retry-After": "7"}, 7.0),
        ({"Date": DATE, "Age": "5"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_first_usable_hint_counts(headers: dict[str, str], seconds: float | None) -> None:
    assert hints_of(headers, 429).retry_after == seconds


@pytest.mark.parametrize("family", ["RateLimit", "X-RateLimit", "x-ratelimit"])
class TestQuota:
    def test_only_of_a_429_or_503(self, family: str) -> None:
        headers = {f"{family}-Remaining": "0", f"{family}-Reset": "30"}

        waits = {status: hints_of(headers, status).retry_after for status in (408, 425, 429, 500, 502, 503, 504, 529)}
        assert {status for status, wait in waits.items() if wait is not None} == {429, 503}
        assert waits[429] == waits[503] == 30.0

    @pytest.mark.parametrize("remaining", [None, "1", "-1", "", "none", "0.5"])
    def test_only_with_nothing_remaining(self, family: str, remaining: str | None) -> None:
        headers = {f"{family}-Reset": "30"}
        if remaining is not None:
            headers[f"{family}-Remaining"] = remaining

        assert hints_of(headers, 429) == NO_HINTS

    def test_a_point_in_time_counts_from_the_date_of_the_response(self, family: str) -> None:
        def wait(reset: str, date: str | None = DATE) -> float | None:
            headers = {f"{family}-Remaining": "0", f"{family}-Reset": reset}
            return hints_of(headers if date is None else {"Date": date, **headers}, 429).retry_after

        assert wait(str(EPOCH + 30)) == 30.0
        assert wait(f"{EPOCH + 30}500") == 30.5
        assert wait(str(EPOCH - 1)) is None
        assert wait(str(EPOCH + 30), None) is None


@pytest.mark.parametrize(
    ("value", "verdict"),
    [("true", True), ("TRUE", True), ("false", False), (" False ", False), ("", None), ("no", None), ("1", None)],
)  # fmt: skip
def test_the_verdict(value: str, verdict: bool | None) -> None:
    assert hints_of({"x-should-retry": value, "Retry-After": "1"}, 503) == Hints(1.0, verdict)


def cimultidict(pairs: list[tuple[str, str]]) -> Any:
    return importlib.import_module("multidict").CIMultiDict(pairs)


def requests_headers(pairs: list[tuple[str, str]]) -> Any:
    merged: dict[str, str] = {}
    for name, value in pairs:
        merged[name] = f"{merged[name]}, {value}" if name in merged else value
    return importlib.import_module("requests.structures").CaseInsensitiveDict(merged)


def urllib3_headers(pairs: list[tuple[str, str]]) -> Any:
    headers = importlib.import_module("urllib3").HTTPHeaderDict()
    for name, value in pairs:
        headers.add(name, value)
    return headers


def message(pairs: list[tuple[str, str]]) -> Any:
    headers = email.message.Message()
    for name, value in pairs:
        headers[name] = value
    return headers


def raw(pairs: list[tuple[str, str]]) -> Any:
    return httpx.Headers(pairs).raw


CLIENTS: dict[str, Callable[[list[tuple[str, str]]], Any]] = {
    "httpx": httpx.Headers,
    "httpx2": httpx2.Headers,
    "httpx raw": raw,
    "aiohttp": cimultidict,
    "requests": requests_headers,
    "urllib3": urllib3_headers,
    "urllib": message,
    "pairs": list,
}


@pytest.mark.parametrize("make", CLIENTS.values(), ids=CLIENTS)
def test_the_headers_of_every_client(make: Callable[[list[tuple[str, str]]], Any]) -> None:
    headers = make([("Date", DATE), ("Retry-After", "1"), ("x-should-retry", "true"), ("Retry-After", "7")])
    late = make([("Date", DATE), ("Retry-After", "Wed, 21 Oct 2026 07:28:30 GMT")])

    assert hints_of(headers, 503) == Hints(7.0, True)
    assert hints_of(late, 503) == Hints(30.0)
    assert quota_of(headers) is quota_of(late) is None


@pytest.mark.parametrize("make", CLIENTS.values(), ids=CLIENTS)
def test_the_quotas_for_every_client(make: Callable[[list[tuple[str, str]]], Any]) -> None:
    repeated = make([("RateLimit", '"default";r=50;t=30'), ("Server", "x"), ("RateLimit", '"daily";r=0;t=3600')])

    assert quota_of(repeated) == Hint(0, 3600)
    assert quota_of(make(list(OPENAI.items()))) == Hint(5, 360)
    assert quota_of(make(list(ANTHROPIC.items()))) == Hint(0, 30)
    assert hints_of(repeated, 429) == Hints(3600.0)
    assert hints_of(make(list(ANTHROPIC.items())), 503) == Hints(30.0)


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER", b"Retry-After"])
@pytest.mark.parametrize("value", ["7", b"7", 7])
def test_a_plain_dict(name: object, value: object) -> None:
    assert hints_of({name: value, "Content-Type": "text/plain"}, 503) == Hints(7.0)


@pytest.mark.parametrize(
    "headers", [None, {}, [], 7, "Retry-After: 7", object(), {"Retry-After": None}, [("a",)], {7: 7}]
)
def test_what_are_no_headers(headers: object) -> None:
    assert hints_of(headers, 503) == NO_HINTS
    assert quota_of(headers) is None


@pytest.mark.parametrize(
    ("headers", "quota"),
    [
        ({"RateLimit": '"default";r=50;t=30', "RateLimit-Remaining": "0", "RateLimit-Reset": "9"}, Hint(50, 30)),
        ({"RateLimit": '"default";r=50;t=x', "RateLimit-Remaining": "0", "RateLimit-Reset": "9"}, Hint(0, 9)),
        ({"RateLimit-Remaining": "5", "RateLimit-Reset": "30", **OTHER_FAMILY}, Hint(5, 30)),
        ({"RateLimit-Remaining": "5", "RateLimit-Reset": "-1", **OTHER_FAMILY}, Hint(0, 9)),
        ({**OTHER_FAMILY, "X-RateLimit-Reset-After": "1.25"}, Hint(0, 1.25)),
        ({**OTHER_FAMILY, "X-RateLimit-Reset-After": "soon"}, Hint(0, 9)),
        ({**OTHER_FAMILY, **OPENAI}, Hint(0, 9)),
        ({**OPENAI, **ANTHROPIC}, Hint(5, 360)),
        (ANTHROPIC, Hint(0, 30)),
        ({"RateLimit-Remaining": "9" * 400, "RateLimit-Reset": "9" * 400}, Hint(LONGEST, LONGEST)),
        ({**OTHER_FAMILY, "Age": "0"}, Hint(0, 9)),
        ({**OTHER_FAMILY, "Age": "1"}, None),
        ({"Retry-After": "7", "Date": DATE}, None),
        ({"Date": DATE, "Server": "x"}, None),
    ],
)
def test_the_first_usable_quota_counts(headers: dict[str, str], quota: Hint | None) -> None:
    assert quota_of(headers) == quota
    assert quota_of({name.lower().encode(): value.encode() for name, value in headers.items()}) == quota


def test_nothing_is_parsed_without_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError

    for name in ("hints_in", "seconds_in", "number_in", "timestamp_in", "_text"):
        monkeypatch.setattr(f"resilience._outcome.server_hints.{name}", forbidden)
    headers = [("Server", "x"), ("Content-Type", "text/plain"), (b"Content-Length", b"5"), ("X-Request-Id", "7")]

    assert quota_of(headers) is None
    assert hints_of(headers, 503) is NO_HINTS
