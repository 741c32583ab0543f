"""The table of status codes, and where responses and exceptions keep theirs."""

from __future__ import annotations

import email.message
import http
import importlib
import io
import urllib.error
from types import SimpleNamespace
from typing import Any

import pytest

from resilience import Failure, FailureKind
from resilience._outcome import http_status
from resilience._outcome.http_status import (
    AWS_THROTTLING_CODES,
    STATUSES,
    headers_of,
    is_throttled,
    looks_like_response,
    status_of,
)

TRANSIENT, TIMEOUT, OVERLOAD = FailureKind.TRANSIENT, FailureKind.TIMEOUT, FailureKind.OVERLOAD

TABLE = {
    408: Failure(TIMEOUT, counted=False),
    425: Failure(TRANSIENT, counted=False),
    429: Failure(OVERLOAD, counted=False, unprocessed=True),
    500: Failure(TRANSIENT),
    502: Failure(TRANSIENT),
    503: Failure(OVERLOAD),
    504: Failure(TIMEOUT),
    520: Failure(TRANSIENT),
    521: Failure(TRANSIENT, unprocessed=True),
    522: Failure(TIMEOUT, unprocessed=True),
    523: Failure(TRANSIENT, unprocessed=True),
    524: Failure(TIMEOUT),
    529: Failure(OVERLOAD, unprocessed=True),
}


def test_the_table() -> None:
    assert http_status.TABLE == TABLE
    assert frozenset(TABLE) == STATUSES


@pytest.mark.parametrize("name", ["status_code", "status", "http_status", "code"])
@pytest.mark.parametrize("value", [503, http.HTTPStatus.SERVICE_UNAVAILABLE])
def test_where_a_status_is(name: str, value: int) -> None:
    error = RuntimeError()
    error.__dict__[name] = value

    for holder in (error, SimpleNamespace(**{name: value}), type("Declared", (), {name: value})()):
        assert status_of(holder) == 503
        assert type(status_of(holder)) is int
        assert status_of(SimpleNamespace(response=holder)) == 503


def test_the_first_of_them_counts() -> None:
    assert status_of(SimpleNamespace(code=500, http_status=502, status=503, status_code=504)) == 504
    assert status_of(SimpleNamespace(code=500, http_status=502, status=503)) == 503
    assert status_of(SimpleNamespace(code=500, http_status=502)) == 502
    assert status_of(SimpleNamespace(code=500, response=SimpleNamespace(status=503))) == 500
    assert status_of(SimpleNamespace(status_code=None, status="busy", code=503)) == 503


@pytest.mark.parametrize("value", [True, False, None, "503", 503.0, 0, 99, 600, -503, lambda: 503, [503]])
def test_what_is_no_status(value: object) -> None:
    for name in ("status_code", "status", "http_status", "code"):
        assert status_of(SimpleNamespace(**{name: value})) is None
        assert status_of(SimpleNamespace(response=SimpleNamespace(**{name: value}))) is None


@pytest.mark.parametrize("value", [None, 503, "503", b"", {"status_code": 503}, [503], (), object(), RuntimeError(503)])
def test_values_without_a_status(value: object) -> None:
    for _ in range(2):
        assert status_of(value) is None
        assert headers_of(value) is None
        assert not looks_like_response(value)


def test_slots_and_properties() -> None:
    class Slotted:
        __slots__ = ("status",)

    class Property:
        @property
        def status_code(self) -> int:
            return 503

    class Broken:
        code = 500

        @property
        def status_code(self) -> int:
            raise RuntimeError("no response yet")

    slotted: Any = Slotted()
    assert status_of(slotted) is None
    slotted.status = 503
    assert status_of(slotted) == 503
    assert status_of(Property()) == 503
    assert status_of(Broken()) == 500


def test_an_object_that_answers_to_every_name_is_not_asked() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> int:
            raise AssertionError(name)

    class Result:
        def __init__(self, proxy: Proxy) -> None:
            self.response = proxy

    for value in (Proxy(), Result(Proxy())):
        assert status_of(value) is None
        assert headers_of(value) is None
        assert not looks_like_response(value)


def test_a_response_that_is_its_own_response_ends() -> None:
    endless = SimpleNamespace(response=None)
    endless.response = endless

    assert status_of(endless) is None


def test_a_deprecated_alias_is_not_read() -> None:
    """The filter for warnings makes an error of it."""
    aiohttp: Any = importlib.import_module("aiohttp")
    info = SimpleNamespace(real_url="http://quotes.test")

    assert status_of(aiohttp.ClientResponseError(info, (), status=503)) == 503
    assert status_of(aiohttp.ClientResponseError(info, ())) is None


def test_botocore() -> None:
    exceptions: Any = importlib.import_module("botocore.exceptions")
    headers = {"retry-after": "3"}
    body = {"ResponseMetadata": {"HTTPStatusCode": 503, "HTTPHeaders": headers}, "Error": {"Code": "SlowDown"}}
    busy = exceptions.ClientError(body, "PutObject")
    missing = exceptions.ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")

    assert (status_of(busy), headers_of(busy), is_throttled(busy)) == (503, headers, True)
    assert (status_of(missing), headers_of(missing), is_throttled(missing)) == (None, None, False)


def test_the_codes_for_throttling_are_those_of_botocore() -> None:
    standard: Any = importlib.import_module("botocore.retries.standard")

    assert set(standard.ThrottledRetryableChecker._THROTTLED_ERROR_CODES) == AWS_THROTTLING_CODES


def test_urllib() -> None:
    message = email.message.Message()
    message["Retry-After"] = "3"
    with urllib.error.HTTPError("http://quotes.test", 503, "busy", message, io.BytesIO()) as error:
        assert status_of(error) == 503
        assert headers_of(error) is message


def test_headers() -> None:
    one = {"retry-after": "1"}
    assert headers_of(SimpleNamespace(headers=one)) is one
    assert headers_of(SimpleNamespace(headers=None, response=SimpleNamespace(headers=one))) is one
    assert headers_of(SimpleNamespace(headers={}, response=SimpleNamespace(headers=one))) is one
    assert headers_of(SimpleNamespace(meta=SimpleNamespace(headers=one))) is one
    assert headers_of(SimpleNamespace(response={"ResponseMetadata": {"HTTPHeaders": one}})) is one
    assert headers_of(SimpleNamespace(response={"ResponseMetadata": None})) is None
    assert headers_of(SimpleNamespace(headers={}, response=None)) is None


def test_what_looks_like_a_response() -> None:
    assert looks_like_response(SimpleNamespace(status_code=200))
    assert looks_like_response(SimpleNamespace(status=200, headers={}))
    assert not looks_like_response(SimpleNamespace(status=200))
    assert not looks_like_response(SimpleNamespace(code=503, headers={}))


def test_the_memory_for_types_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_status, "MAX_CACHED_TYPES", len(http_status._declared) + 1)
    kinds = [type(f"Kind{number}", (), {"status": 503}) for number in range(3)]

    assert [status_of(kind()) for kind in kinds] == [503, 503, 503]
    assert sum(kind in http_status._declared for kind in kinds) == 1
