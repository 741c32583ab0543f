"""The warnings about an exception that is on no list, and about a response that no list looks at."""

from __future__ import annotations

import importlib
import logging
from typing import Any

import pytest

from resilience import HTTP_FAILURES, Allowlist, CircuitBreaker, CircuitOpenError, Pipeline, Retry, backoff
from resilience._outcome.unlisted import KNOWN, log_bad_response, log_unlisted
from tests.support.functions import Failing

pytestmark = pytest.mark.usefixtures("nothing_logged_yet")


class TestUnlisted:
    def test_the_first_unlisted_exception_of_a_type_is_logged_with_the_fix(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        pipeline = Pipeline(Retry(), name="unlisted-here")
        with caplog.at_level(logging.WARNING, "resilience"):
            for _ in range(3):
                with pytest.raises(KeyError):
                    pipeline.call(Failing(error=KeyError))
            with pytest.raises(ValueError, match="x"):
                pipeline.call(Failing(error=lambda: ValueError("x")))

        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        assert "unlisted-here let builtins.KeyError through" in lines[0]
        assert "failures=NETWORK_ERRORS | KeyError" in lines[0]

    def test_a_known_answer_is_not(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "resilience"), pytest.raises(KeyError):
            Pipeline(Retry(), failures=Allowlist(OSError, answers=(KeyError,))).call(Failing(error=KeyError))

        assert caplog.records == []

    def test_a_breaker_says_so_too(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "resilience"), pytest.raises(KeyError):
            Pipeline(CircuitBreaker()).call(Failing(error=KeyError))

        assert "let builtins.KeyError through" in caplog.text


def test_what_no_allowlist_lists_comes_with_the_advice_to_list_it(caplog: pytest.LogCaptureFixture) -> None:
    log_unlisted("shop", KeyError("x"))
    log_unlisted("shop", KeyError("y"))

    assert caplog.messages == [
        "shop let builtins.KeyError through: no allowlist lists it, so it is neither retried nor counted. If it is a "
        "failure of the dependency, give failures=NETWORK_ERRORS | KeyError to the pipeline, or on= to the policy; if "
        "it is a known answer, answers=(KeyError,) (this is logged once)"
    ]


def test_nothing_is_said_of_what_an_integration_knows(caplog: pytest.LogCaptureFixture) -> None:
    error = KeyError("x")
    error.__dict__[KNOWN] = True

    log_unlisted("shop", error)

    assert caplog.messages == []


requests: Any = importlib.import_module("requests")
HTTPError: type[Exception] = requests.HTTPError


def http_error(status: int) -> Exception:
    """As `raise_for_status` raises it."""
    response = requests.Response()
    response.status_code = status
    error: Exception = requests.HTTPError(response=response)
    return error


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_an_exception_with_a_status_is_not_to_be_listed_by_its_type(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(error=lambda: http_error(status))
    with pytest.raises(HTTPError):
        Pipeline(Retry(wait=backoff.none()), CircuitBreaker()).call(failing)

    (line,) = caplog.messages
    assert f"It has an HTTP status ({status})" in line
    assert "Give failures=resilience.HTTP_FAILURES to the pipeline" in line
    assert "| resilience.status_failures()" in line
    assert "Do not list the class" in line
    assert "| HTTPError" not in line
    assert "answers=" not in line


def test_the_advice_for_an_exception_with_a_status_is_good(caplog: pytest.LogCaptureFixture) -> None:
    """Listing the class made three attempts of a 404, and the breaker opened."""
    advised = Pipeline(Retry(3, wait=backoff.none()), CircuitBreaker(), failures=HTTP_FAILURES)
    missing, busy = Failing(error=lambda: http_error(404)), Failing(error=lambda: http_error(503))
    for function in (missing, busy):
        with pytest.raises(HTTPError):
            advised.call(function)

    assert (missing.calls, busy.calls) == (1, 3)
    assert [line for line in caplog.messages if "let" in line] == []


def test_an_sdk_that_wraps_the_rejection_of_its_transport_is_not_to_be_listed(caplog: pytest.LogCaptureFixture) -> None:
    error = RuntimeError("Connection error.")
    error.__cause__ = CircuitOpenError("the circuit is open")

    log_unlisted("shop", error)

    assert caplog.messages == []


def test_a_bad_response_comes_with_what_to_write(caplog: pytest.LogCaptureFixture) -> None:
    log_bad_response("shop", "fetch", 503)
    log_bad_response("shop", "fetch", 500)
    log_bad_response("", "fetch", 429)

    first, second = caplog.messages
    assert first == (
        "fetch of shop returned a response with HTTP status 503: no allowlist lists returned values, so it is neither "
        "retried nor counted. Give failures=resilience.HTTP_FAILURES to the pipeline, or add | "
        "resilience.status_failures() to the failures that it has: statuses such as 429 and 503 are then failures, and "
        "all others, such as 404, known answers (this is logged once)"
    )
    assert second.startswith("fetch of a pipeline returned a response with HTTP status 429")
