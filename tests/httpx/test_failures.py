"""Which outcomes are failures in HTTP, what the server says about waiting, and allowlists in place of these."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import httpx
import pytest

from resilience import Allowlist, Failure, FailureKind, Pipeline, Retry
from resilience.httpx import HTTP_FAILURES, http_failures
from resilience.httpx._failures import retry_after
from resilience.testing import virtual_time
from tests.httpx.helpers import NOW, Ask, Script, both_modules, retrying

TRANSIENT, TIMEOUT, OVERLOAD = FailureKind.TRANSIENT, FailureKind.TIMEOUT, FailureKind.OVERLOAD


STATUSES = {
    408: Failure(TRANSIENT, counted=False),
    425: Failure(TRANSIENT, counted=False),
    429: Failure(OVERLOAD, counted=False),
    500: Failure(TRANSIENT),
    502: Failure(TRANSIENT),
    503: Failure(OVERLOAD),
    504: Failure(TRANSIENT),
}


EXCEPTIONS = {
    "ConnectError": Failure(TRANSIENT, unprocessed=True),
    "ConnectTimeout": Failure(TIMEOUT, unprocessed=True),
    "PoolTimeout": Failure(TIMEOUT, unprocessed=True, counted=False),
    "ReadTimeout": Failure(TIMEOUT),
    "WriteTimeout": Failure(TIMEOUT),
    "ReadError": Failure(TRANSIENT),
    "WriteError": Failure(TRANSIENT),
    "CloseError": Failure(TRANSIENT),
    "RemoteProtocolError": Failure(TRANSIENT),
    "ProxyError": Failure(TRANSIENT, unprocessed=True),
    "LocalProtocolError": None,
    "UnsupportedProtocol": None,
    "DecodingError": None,
    "TooManyRedirects": None,
}


@both_modules
@pytest.mark.parametrize("status", [200, 204, 301, 304, 400, 401, 403, 404, 409, 413, 501, *STATUSES])
def test_a_status(module: ModuleType, status: int) -> None:
    response = module.Response(status, request=module.Request("GET", "http://quotes.test"))

    assert HTTP_FAILURES.classify(response) == STATUSES.get(status)
    assert HTTP_FAILURES.classify(module.HTTPStatusError("", request=response.request, response=response)) == (
        STATUSES.get(status)
    )
    assert HTTP_FAILURES.is_answer(response) is (status not in STATUSES)


@both_modules
@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_exception(module: ModuleType, name: str) -> None:
    assert HTTP_FAILURES.classify(getattr(module, name)("")) == EXCEPTIONS[name]


def test_other_values_are_none() -> None:
    class Other:
        status_code = 503

    assert [HTTP_FAILURES.classify(value) for value in (None, 503, "503", Other(), {"status_code": 503})] == [None] * 5


def test_statuses_of_ones_own() -> None:
    only = http_failures(statuses=[418, 503])

    assert only.classify(httpx.Response(418)) == Failure(TRANSIENT)
    assert only.classify(httpx.Response(503)) == Failure(OVERLOAD)
    assert only.classify(httpx.Response(500)) is None
    assert only.classify(httpx.ReadError("")) == Failure(TRANSIENT)


@pytest.mark.parametrize("status", [399, 600, "503", True, 503.0])
def test_a_status_out_of_range(status: int) -> None:
    with pytest.raises((TypeError, ValueError), match="a status"):
        http_failures(statuses=[status])


def test_statuses_are_several() -> None:
    wrong: Any = 503
    with pytest.raises(TypeError, match=r"statuses must be several status codes, such as \[502, 503\], not 503"):
        http_failures(wrong)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("0", 0.0), ("7", 7.0), ("1.5", 1.5), (" 3 ", 3.0), ("1, 7", 7.0), ("7,1", 7.0),
        ("", None), ("-1", None), ("nan", None), ("inf", None), ("soon", None), ("1e3", None), ("0x10", None),
        ("1_000", None), ("+5", None), ("٣", None), ("1.", None), (".5", None), ("1, soon", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_a_hint_too_large_for_a_number_is_none() -> None:
    failure = HTTP_FAILURES.classify(httpx.Response(503, headers={"retry-after": "9" * 400}))

    assert failure is not None
    assert failure.retry_after is None


def test_a_hint_is_waited_for() -> None:
    script = Script(httpx.Response(503, headers={"retry-after": "7"}), 200)

    with virtual_time() as clock:
        assert Ask("sync")(retrying(), script).status_code == 200

    assert clock.elapsed == 7


def test_failures_of_ones_own_replace_those_of_http() -> None:
    pipeline = Pipeline(Retry(2, wait=NOW), failures=Allowlist.of_results(lambda response: response.status_code == 404))

    assert Ask("sync")(pipeline, Script(404, 200)).status_code == 200
    assert Ask("sync")(pipeline, Script(503, 200)).status_code == 503


def test_the_failures_of_http_on_a_decorated_function() -> None:
    script = Script(503, 200)
    client = httpx.Client(transport=script)

    @Pipeline(Retry(2, wait=NOW), failures=HTTP_FAILURES)
    def fetch() -> str:
        return client.get("http://quotes.test").raise_for_status().text

    assert fetch() == ""
    assert len(script.requests) == 2
