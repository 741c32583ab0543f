"""Several rate limits at once: a call takes from all of them or from none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resilience import CombinedRateLimit, Partition, Pipeline, RateLimit, RateLimitedError, Ticket
from resilience._outcome.ending import ABANDONED
from resilience.events import Queued
from resilience.testing import Recorder, VirtualClock
from tests.policies.rate_limit.helpers import admitted, call_of, exceeds, now, queued

pytestmark = pytest.mark.usefixtures("clock")


def llm(**more: Any) -> tuple[RateLimit, RateLimit, CombinedRateLimit]:
    """60 requests and 6,000 tokens a minute."""
    requests = RateLimit(60, per=60, burst=5, name="requests")
    tokens = RateLimit(6000, per=60, burst=1000, cost=lambda call: call.args[0], name="tokens", **more)
    return requests, tokens, RateLimit.all_of(requests, tokens)


def test_it_takes_from_all() -> None:
    requests, tokens, both = llm(actual=lambda used: used)
    assert both.limits == (requests, tokens)
    assert Pipeline(both).call(lambda estimate: 250, 400) == 250

    assert requests.available == pytest.approx(4)
    assert tokens.available == pytest.approx(750)


def test_it_takes_from_none_if_one_would_have_to_wait_too_long() -> None:
    requests, tokens, both = llm()
    tokens.update(max_wait=1)
    both.call(int, 1000)
    with pytest.raises(RateLimitedError) as caught:
        both.call(int, 200)

    assert caught.value.retry_after == pytest.approx(2)
    assert requests.available == pytest.approx(4)
    assert both.snapshot()["rejected"] == 1


def test_it_waits_for_the_one_that_is_last(clock: VirtualClock) -> None:
    _requests, _tokens, both = llm()
    times: list[float] = []
    for estimate in (1000, 100, 10, 10, 10, 10, 500):
        both.call(lambda _: times.append(clock.elapsed), estimate)

    assert times == pytest.approx([0, 1, 1.1, 1.2, 1.3, 1.4, 6.4])


def test_both_rates_are_kept_and_used() -> None:
    requests = RateLimit(10, burst=3, max_wait=1e3)
    tokens = RateLimit(100, burst=50, cost=lambda call: call.args[0], max_wait=1e3)
    both = RateLimit.all_of(requests, tokens)
    costs = [1, 1, 40, 30, 2, 2, 2, 2, 2, 80, 5, 5] * 3
    times: list[float] = []

    async def main() -> None:
        began = now()

        async def one(cost: int) -> None:
            await both.acall(lambda _: times.append(now() - began), cost)

        await asyncio.gather(*map(one, costs))

    asyncio.run(main())
    assert exceeds(times, 10, 3) == []
    assert exceeds(times, 100, 80, costs) == []


def test_the_wait_is_forecast_exactly_where_the_limits_take_turns(clock: VirtualClock) -> None:
    requests = RateLimit(1, max_wait=1e3)
    tokens = RateLimit(100, burst=100, cost=lambda call: call.args[0], max_wait=1e3)
    both = RateLimit.all_of(requests, tokens)
    told: list[float] = []
    came: list[float] = []
    call = call_of(both)
    tickets = []
    for cost in (1, 400, 1, 1, 300, 50, 2):
        call.args = (cost,)
        token = both.admit(call)
        if isinstance(token, Ticket):
            tickets.append(token)
            told.append(token.check_at)
    for ticket in tickets:
        clock.jump(ticket.check_at)
        assert ticket.acquire()
        came.append(now())

    assert told == pytest.approx(came)


def test_cancelled_waits_and_refunds_give_back_to_all_and_wake_the_others(clock: VirtualClock) -> None:
    requests, tokens, both = llm()
    call = call_of(both)
    call.args = (1000,)
    token = both.admit(call)
    waiting = both.admit(call)
    clock.advance(0.001)  # whoever has waited longest goes first
    alone = queued_of(tokens, 10)
    woken: list[str] = []
    assert alone.add_waker(lambda: woken.append("alone"))
    both.settle(token, ABANDONED)

    assert isinstance(waiting, Ticket)
    assert waiting.acquire()
    assert woken == []
    both.settle(waiting, ABANDONED)
    assert woken == ["alone"]
    alone.leave()
    assert (both.queued, tokens.queued) == (0, 0)
    assert requests.available >= 4


def queued_of(limit: RateLimit, cost: int) -> Any:
    call = call_of(limit)
    call.args = (cost,)
    token = limit.admit(call)
    assert isinstance(token, Ticket)
    return token


def test_a_granted_wait_that_is_cancelled_moves_those_of_another_gate_forward(clock: VirtualClock) -> None:
    shared = RateLimit(1, max_wait=60)
    one, other = RateLimit.all_of(shared), RateLimit.all_of(shared)
    admitted(one)
    first, second = queued(one), queued(other)
    clock.advance(1)
    one.admit_due()
    assert first.state.name == "GRANTED"
    assert not second.acquire()
    first.leave()

    assert second.acquire()


def test_calls_of_a_member_by_itself_count(clock: VirtualClock) -> None:
    requests, tokens, both = llm()
    for _ in range(5):
        requests.call(str)
    both.call(int, 100)

    assert clock.elapsed == pytest.approx(1)
    assert tokens.available == pytest.approx(900)


def test_a_member_that_is_off_is_left_out() -> None:
    requests, tokens, both = llm()
    tokens.mode = "off"
    both.call(int, 900)
    assert tokens.available == 1000
    assert requests.available == pytest.approx(4)
    requests.mode = "off"
    both.call(int, 900)
    assert requests.available == pytest.approx(4)


def test_its_longest_wait_is_the_shortest_of_its_members() -> None:
    requests, tokens, both = llm()
    requests.update(max_wait=3)
    tokens.update(max_wait=7)
    both.call(int, 1000)
    with pytest.raises(RateLimitedError):
        both.call(int, 301)


def test_updates_and_resets_of_members_are_heeded(clock: VirtualClock) -> None:
    _requests, tokens, both = llm()
    both.call(int, 1000)
    call = call_of(both)
    call.args = (1000,)
    ticket = both.admit(call)
    assert isinstance(ticket, Ticket)
    tokens.update(rate=60_000)
    clock.advance(1)
    assert ticket.acquire()
    both.reset()
    assert tokens.available == 1000


def test_describe_snapshot_and_repr_tell_of_the_members() -> None:
    requests, tokens, both = llm()

    assert both.describe() == {
        "kind": "rate_limit",
        "name": "rate_limit",
        "mode": "enforce",
        "limits": [requests.describe(), tokens.describe()],
    }
    assert both.snapshot() == {"queued": 0, "rejected": 0, "limits": [requests.snapshot(), tokens.snapshot()]}
    assert repr(both).startswith("RateLimit.all_of(RateLimit(rate=60.0, per=60.0, burst=5.0), RateLimit(")


def test_bad_members_are_refused() -> None:
    make: Any = RateLimit.all_of
    one = RateLimit(1)
    with pytest.raises(TypeError, match="at least one"):
        make()
    with pytest.raises(TypeError, match="of type RateLimit, not 3"):
        make(one, 3)
    with pytest.raises(TypeError, match="of type RateLimit"):
        make(make(one))
    with pytest.raises(ValueError, match="twice"):
        make(one, one)


def test_in_shadow_mode_nobody_waits_and_those_who_would_have_been_admitted_count() -> None:
    requests, _tokens, both = llm()
    both.mode = "shadow"
    for _ in range(7):
        both.call(int, 100)
    assert requests.available == pytest.approx(0)
    assert both.queued == 0


def test_a_limit_in_shadow_mode_takes_and_reports_and_does_not_hold_back() -> None:
    requests, tokens, both = llm(actual=lambda used: used)
    pipeline = Pipeline(both, name="llm")
    tokens.mode = "shadow"
    with Recorder(pipeline) as recorder:
        for _ in range(3):
            pipeline.call(lambda estimate: estimate, 400)

    assert tokens.available == pytest.approx(200)
    assert requests.available == pytest.approx(2)
    (queued,) = recorder.of(Queued)
    assert (queued.policy, queued.mode) == ("tokens", "shadow")

    tokens.mode = "off"
    with Recorder(pipeline) as recorder:
        pipeline.call(lambda estimate: estimate, 400)
    assert recorder.of(Queued) == []
    assert tokens.available == pytest.approx(200)
    tokens.mode = "enforce"
    pipeline.call(lambda estimate: estimate, 200)
    assert tokens.available == pytest.approx(0)


def test_a_partition_keeps_one_whose_limits_are_in_debt(clock: VirtualClock) -> None:
    partition = Partition(lambda: RateLimit.all_of(RateLimit(1, per=60.0), RateLimit(10)), idle=10.0)
    Pipeline(partition).bind(target="a").call(int)
    clock.advance(30)

    assert len(partition) == 1
    clock.advance(60)
    assert len(partition) == 0
