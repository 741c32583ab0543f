"""Which outcomes are failures in HTTP, what the server says about waiting, and allowlists in place of these."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import httpx
import pytest

from resilience import Allowlist, Failure, FailureKind, Pipeline, Retry
from resilience.httpx import HTTP_FAILURES, attach, http_failures
from resilience.testing import virtual_time
from tests.httpx.helpers import NOW, Ask, Script, both_modules, retrying

TRANSIENT, TIMEOUT, OVERLOAD = FailureKind.TRANSIENT, FailureKind.TIMEOUT, FailureKind.OVERLOAD


STATUSES = {
    408: Failure(TIMEOUT, counted=False),
    425: Failure(TRANSIENT, counted=False),
    429: Failure(OVERLOAD, unprocessed=True, counted=False),
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
    assert [HTTP_FAILURES.classify(value) for value in (None, 503, "503", {"status_code": 503})] == [None] * 4


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


def test_a_hint_too_large_for_a_number_is_the_longest() -> None:
    failure = HTTP_FAILURES.classify(httpx.Response(503, headers={"retry-after": "9" * 400}))

    assert failure is not None
    assert failure.retry_after == sys.float_info.max


@both_modules
def test_what_the_server_says(module: ModuleType) -> None:
    headers = {"date": "Wed, 21 Oct 2026 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}
    late = module.Response(503, headers=headers)
    several = module.Response(429, headers=[("retry-after", "1"), ("retry-after", "7"), ("x-should-retry", "false")])

    assert HTTP_FAILURES.classify(late) == Failure(OVERLOAD, 30.0)
    assert HTTP_FAILURES.classify(several) == Failure(OVERLOAD, 7.0, unprocessed=True, retryable=False, counted=False)


@pytest.mark.parametrize(("status", "requests"), [(429, 2), (521, 2), (503, 1), (500, 1)])
def test_a_post_is_repeated_if_it_was_turned_away_unprocessed(status: int, requests: int) -> None:
    script = Script(status, 200)
    with attach(httpx.Client(transport=script), retrying()) as client:
        client.post("http://quotes.test", json={})

    assert len(script.requests) == requests


def test_a_hint_is_waited_for() -> None:
    script = Script(httpx.Response(503, headers={"retry-after": "7"}), 200)

    with virtual_time() as clock:
        assert Ask("sync")(retrying(), script).status_code == 200

    assert 7 <= clock.elapsed <= 7 * 1.2


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
