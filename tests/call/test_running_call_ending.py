"""One ending for each exception that an attempt raises: shared by the drivers, and gone with the attempt."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest

from resilience import (
    Allowlist,
    Bulkhead,
    Call,
    CircuitBreaker,
    Ending,
    Pipeline,
    Retry,
    RetryBudget,
    Substitute,
    backoff,
)
from tests.support.garbage import no_collection

NOW = backoff.none()


class StatusError(Exception):
    status = 503


def test_an_exception_that_is_raised_again_is_judged_again() -> None:
    error = StatusError()
    statuses = iter([503, 404])
    busy = Allowlist(StatusError, when=lambda one: getattr(one, "status", 0) == 503)
    made: list[int] = []

    def answer() -> None:
        error.status = next(statuses)
        made.append(error.status)
        raise error

    with pytest.raises(StatusError):
        Pipeline(Retry(5, wait=NOW), failures=busy, budget=None).call(answer)

    assert made == [503, 404]


def test_a_breaker_judges_an_exception_that_is_raised_again_anew() -> None:
    breaker = CircuitBreaker(consecutive_failures=3)
    error, down = OSError("x"), [True]
    pipeline = Pipeline(Retry(4, wait=NOW), breaker, failures=Allowlist(OSError, when=lambda _: down[0]), budget=None)
    made: list[int] = []

    def fail() -> None:
        made.append(1)
        down[0] = len(made) < 2
        raise error

    with pytest.raises(OSError, match="x"):
        pipeline.call(fail)

    assert (len(made), breaker.snapshot()["failures"], breaker.state) == (2, 1, "closed")


class Maybe(Substitute[Any]):
    def __init__(self, handles: bool) -> None:
        super().__init__()
        self.handles = handles

    def should_handle(self, call: Call, ending: Ending) -> bool:
        return self.handles

    def replace(self, call: Call, ending: Ending) -> str:
        return "instead"


class Big:
    """What a user's frame holds."""


@pytest.mark.parametrize("handles", [True, False])
@pytest.mark.parametrize("way", ["plain", "awaited"])
def test_a_substitute_keeps_no_frames_alive(handles: bool, way: str) -> None:
    seen: list[weakref.ref[Big]] = []

    def fail() -> None:
        big = Big()
        seen.append(weakref.ref(big))
        raise ConnectionError

    async def afail() -> None:
        fail()

    pipeline: Pipeline[Any] = Pipeline(Maybe(handles), Bulkhead(1))

    def call() -> None:
        try:
            pipeline.call(fail)
        except ConnectionError:
            assert not handles

    async def acall() -> None:
        try:
            await pipeline.acall(afail)
        except ConnectionError:
            assert not handles

    with no_collection():
        if way == "plain":
            call()
        else:
            asyncio.run(acall())

        assert seen[0]() is None


def broken(error: Exception) -> bool:
    raise ZeroDivisionError


@pytest.mark.usefixtures("nothing_logged_yet")
@pytest.mark.parametrize("policy", [Retry(2, wait=NOW, on=ConnectionError), CircuitBreaker(on=ConnectionError)])
def test_a_policy_with_an_allowlist_of_its_own_does_not_ask_that_of_the_pipeline(
    policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Pipeline(policy, failures=Allowlist(when=broken)).call(fail)

    assert "ZeroDivisionError" not in caplog.text


def test_a_budget_of_the_users_hears_of_failures() -> None:
    class Counting(RetryBudget):
        failures = 0

        def failed(self) -> None:
            self.failures += 1

    budget = Counting()

    def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Pipeline(Retry(3, wait=NOW), budget=budget).call(fail)

    assert budget.failures == 3
