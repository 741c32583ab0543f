"""The recommended pipeline: what it is made of, and that it serves functions, httpx and gRPC."""

from __future__ import annotations

import warnings
from typing import Any, cast

import grpc
import httpx
import pytest

import resilience.grpc
import resilience.httpx
from resilience import Bulkhead, CircuitBreaker, Cooldown, Retry, StandardPipeline, Timeout, pipelines, standard
from resilience._outcome.network_errors import NETWORK_ERRORS
from resilience._pipeline.standard import standard_per_target
from resilience.testing import VirtualClock
from tests.support.functions import Failing
from tests.support.threads import in_threads


def test_it_is_made_of_the_recommended_policies_in_the_recommended_order() -> None:
    payments = standard("payments")

    assert [type(policy) for policy in payments.policies] == [
        Timeout,
        Retry,
        Cooldown,
        Bulkhead,
        CircuitBreaker,
        Timeout,
    ]
    assert [policy.settings.seconds for policy in payments.policies if isinstance(policy, Timeout)] == [30.0, 10.0]
    assert payments.get(Retry).settings.attempts == 3
    settings = payments.get(Bulkhead).settings
    assert (settings.limit, settings.queue, settings.max_wait) == (100, 100, 1.0)
    assert isinstance(payments, StandardPipeline)
    assert pipelines()["payments"] is payments


def test_the_settings_arrive() -> None:
    search = standard(
        "search", timeout=2.0, attempt_timeout=0.5, attempts=2, limit=5, queue=7, max_wait=0.25, mode="shadow"
    )

    assert [policy.settings.seconds for policy in search.policies if isinstance(policy, Timeout)] == [2.0, 0.5]
    assert search.get(Retry).settings.attempts == 2
    settings = search.get(Bulkhead).settings
    assert (settings.limit, settings.queue, settings.max_wait, str(search.mode)) == (5, 7, 0.25, "shadow")


def test_it_gives_no_warning_whatever_the_number_of_attempts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for attempts in (1, 2, 7):
            standard(f"attempts {attempts}", attempts=attempts)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": ""}, "name"),
        ({"timeout": 0}, "timeout must be a number > 0"),
        ({"timeout": float("inf")}, "timeout must be a number > 0"),
        ({"attempt_timeout": -1}, "attempt_timeout must be a number > 0"),
        ({"timeout": 2.0, "attempt_timeout": 2.0}, "attempt_timeout must be less than timeout"),
        ({"attempts": 0}, "attempts must be an integer >= 1"),
        ({"limit": 0}, "limit must be an integer >= 1"),
        ({"queue": -1}, "queue must be an integer >= 0"),
        ({"max_wait": -1}, "max_wait must be a number >= 0"),
        ({"mode": "loud"}, "mode"),
        ({"idempotent": 5}, "idempotent must be True, False or None"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        standard(**{"name": "refused", **settings})


def test_a_function_is_retried(virtual_clock: VirtualClock) -> None:
    assert standard("functions").call(Failing(2)) == "fine"


def test_a_function_fails_by_the_given_allowlist(virtual_clock: VirtualClock) -> None:
    dependency = Failing(2, error=KeyError)

    assert standard("by allowlist", failures=KeyError).call(dependency) == "fine"
    with pytest.raises(TypeError, match="not 503"):
        standard("by nothing", failures=cast(Any, 503))


@pytest.mark.parametrize(("idempotent", "calls"), [(None, 3), (True, 3), (False, 1)])
def test_a_function_that_is_not_idempotent_is_not(
    virtual_clock: VirtualClock, idempotent: bool | None, calls: int
) -> None:
    dependency = Failing()

    with pytest.raises(ConnectionError):
        standard("idempotent or not", idempotent=idempotent).call(dependency)

    assert dependency.calls == calls


@pytest.mark.parametrize(("idempotent", "requests"), [(None, 1), (True, 2)])
def test_it_guards_a_client_of_httpx(virtual_clock: VirtualClock, idempotent: bool | None, requests: int) -> None:
    answers = [httpx.Response(503), httpx.Response(200)]
    made: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        made.append(request)
        return answers[len(made) - 1]

    client = httpx.Client(transport=httpx.MockTransport(answer))
    with resilience.httpx.attach(client, standard("http", idempotent=idempotent)) as guarded:
        guarded.post("http://quotes.test")

    assert len(made) == requests


def test_patterns_are_for_grpc() -> None:
    channel = resilience.grpc.insecure_channel("localhost:1", standard("rpc", idempotent="/quotes.Quotes/Get*"))
    assert isinstance(channel, grpc.Channel)
    channel.close()

    with pytest.raises(ValueError, match="would match no method"):
        resilience.grpc.insecure_channel("localhost:1", standard("rpc 2", idempotent="Get*"))


def test_the_pipeline_for_many_targets_is_made_once() -> None:
    made = in_threads(8, lambda index: standard_per_target("once for all", NETWORK_ERRORS))

    assert len(set(map(id, made))) == 1
