"""Hooks of the user's: what they raise never reaches the call, and what they return is checked."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from resilience import (
    Allowlist,
    Call,
    Ending,
    Gate,
    Loop,
    Pipeline,
    RejectedError,
    RejectReason,
    Retry,
    RetryState,
    Substitute,
    Ticket,
    Timeout,
    backoff,
)
from resilience.events._types import ModeName
from resilience.testing import VirtualClock, virtual_time
from tests.support.functions import down
from tests.support.policies import Noting
from tests.support.turnstile import Turnstile
from tests.support.ways import Make, each_way

# Pipelines of the same name may still be alive in the tracebacks of earlier tests.
pytestmark = [
    pytest.mark.usefixtures("nothing_logged_yet"),
    pytest.mark.filterwarnings("ignore:there are two pipelines"),
]


def broken(*_: Any) -> bool:
    raise RuntimeError("a bug in a hook")


class BrokenLoop(Loop):
    def delay(self, call: Call, ending: Ending, state: RetryState) -> float | None:
        raise RuntimeError("a bug in a hook")


class BrokenSubstitute(Substitute[int]):
    def should_handle(self, call: Call, ending: Ending) -> bool:
        raise RuntimeError("a bug in a hook")


class SecondTimeClosed(Gate[None]):
    def admit(self, call: Call) -> None:
        if call.attempt > 1:
            raise RejectedError("closed", reason=RejectReason.OPEN)

    def settle(self, token: Ticket | None, ending: Ending) -> None: ...


class BrokenNotMade(Retry):
    def on_attempt_rejected(self, call: Call, ending: Ending, error: Exception, state: RetryState) -> None:
        raise RuntimeError("a bug in a hook")


@pytest.mark.parametrize(
    ("policies", "failures"),
    [
        ((BrokenLoop(),), None),
        ((BrokenSubstitute(),), None),
        ((BrokenNotMade(wait=backoff.none()), SecondTimeClosed()), None),
        ((Retry(wait=backoff.none()),), Allowlist(ConnectionError, when=broken)),
    ],
)
def test_the_outcome_stays(
    policies: tuple[Any, ...], failures: Allowlist | None, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline: Pipeline[Any] = Pipeline(*policies, failures=failures)
    with caplog.at_level(logging.ERROR), pytest.raises(ConnectionError, match="down"):
        pipeline.call(down)
    with pytest.raises(ConnectionError, match="down"):
        asyncio.run(pipeline.acall(down))

    assert len([record for record in caplog.records if "logged once" in record.getMessage()]) == 1


def test_a_broken_result_predicate_lets_the_value_through() -> None:
    pipeline = Pipeline(Retry(on=Allowlist.of_results(broken), wait=backoff.none()))

    assert pipeline.call(lambda: 5) == 5
    assert asyncio.run(pipeline.acall(lambda: 5)) == 5


def test_a_failing_settle_hook_does_not_replace_the_outcome(caplog: pytest.LogCaptureFixture) -> None:
    class BreaksSettling(Noting):
        pass

    broken, fine = BreaksSettling(ZeroDivisionError()), Noting()
    pipeline = Pipeline(fine, broken)
    assert pipeline.call(int) == 0
    with pytest.raises(ConnectionError):
        pipeline.call(down)
    assert asyncio.run(pipeline.acall(int)) == 0
    assert broken.endings == fine.endings == ["ok", "failed", "ok"]
    assert "settle of a policy" in caplog.text


class BrokenSettle(Gate[None]):
    def admit(self, call: Call) -> None: ...

    def settle(self, token: Ticket | None, ending: Ending) -> None:
        raise KeyError("a bug in a hook")


class BrokenReward(Loop):
    def delay(self, call: Call, ending: Ending, state: RetryState) -> None: ...

    def on_success(self, info: Any) -> Callable[[], object]:
        return functools.partial(int, "a bug in a hook")


@each_way
@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_broken_hooks_take_no_success_away(make: Make, mode: ModeName) -> None:
    assert make(Pipeline(BrokenSettle(mode=mode), BrokenReward(mode=mode)), lambda: "fine") == "fine"


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_a_reward_that_raises_takes_no_success_away(mode: ModeName) -> None:
    assert Pipeline(BrokenReward(mode=mode)).call(lambda: "fine") == "fine"


class BrokenAdmit(Gate[None]):
    def admit(self, call: Call) -> None:
        raise KeyError("a bug in a hook")


class BrokenRefusal(Turnstile):
    def rejection(self, call: Call) -> RejectedError:
        raise KeyError("a bug in a hook")


def test_a_broken_gate_in_shadow_mode_lets_calls_through() -> None:
    gate = BrokenRefusal()
    assert gate.take()
    gate.mode = "shadow"

    assert Pipeline(BrokenAdmit(mode="shadow"), gate).call(lambda: "fine") == "fine"


def test_a_broken_refusal_is_a_plain_one(virtual_clock: VirtualClock) -> None:
    gate = BrokenRefusal()
    assert gate.take()

    with pytest.raises(RejectedError, match="turnstile rejected the call"):
        Pipeline(gate).call(lambda: "fine")


@pytest.mark.parametrize("wait", [float("inf"), float("nan"), -5, "x", [], 10**400, True])
def test_a_wait_that_is_none_lets_the_error_out(wait: Any) -> None:
    class Odd(Loop):
        def delay(self, call: Call, ending: Ending, state: RetryState) -> Any:
            return wait

    with pytest.raises(ConnectionError, match="down"):
        Pipeline(Odd()).call(down)


def test_an_async_predicate_is_bound_by_the_deadline() -> None:
    async def ponders(error: Exception) -> bool:
        await asyncio.sleep(60)
        return True

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await Pipeline(Timeout(1), Retry(3, on=ponders)).acall(down)

    with virtual_time() as clock:
        asyncio.run(main())

    assert clock.elapsed == pytest.approx(1, abs=0.01)
