"""An adaptive limit by itself: its settings, and what raises and lowers the limit, by its hooks."""

from __future__ import annotations

from typing import Any

import pytest

from resilience import (
    AdaptiveLimit,
    Allowlist,
    BulkheadFullError,
    Call,
    Ending,
    EndingKind,
    Failure,
    FailureKind,
    Hint,
    Pipeline,
    Ticket,
)
from resilience._outcome.ending import DEADLINE, OK, UNSCORED_DEADLINE
from resilience._util.locks import state_lock
from tests.policies.helpers import in_thread, joined
from tests.support.fork import in_child
from tests.support.threads import in_threads, wait_until

OVERLOADED = Ending(EndingKind.FAILED, failure=Failure(FailureKind.OVERLOAD))
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"initial": 0}, ValueError, "initial must be an integer from 1 to 200, not 0"),
    ({"initial": 201}, ValueError, "initial must be an integer from 1 to 200, not 201"),
    ({"initial": 3, "min_limit": 4}, ValueError, "initial must be an integer from 4 to 200, not 3"),
    ({"initial": 2.0}, TypeError, "initial must be an integer from 1 to 200, not 2.0"),
    ({"min_limit": 0}, ValueError, "min_limit must be an integer >= 1, not 0"),
    ({"max_limit": 2, "min_limit": 3}, ValueError, "max_limit must be an integer >= 3, not 2"),
    ({"max_limit": None}, TypeError, "max_limit must be an integer >= 1, not None"),
    ({"backoff_ratio": 0}, ValueError, "backoff_ratio must be a number > 0 and <= 1, not 0"),
    ({"backoff_ratio": 1.1}, ValueError, "backoff_ratio must be a number > 0 and <= 1, not 1.1"),
    ({"queue": -1}, ValueError, "queue must be an integer >= 0, not -1"),
    ({"max_wait": None}, TypeError, "max_wait must be a number >= 0, not None"),
]


def call_of(limit: AdaptiveLimit, **settings: Any) -> Call:
    _, options = Pipeline(limit, **settings).entry()
    return Call.make(options, int, (), {})


def admitted(limit: AdaptiveLimit, calls: int) -> list[Any]:
    call = call_of(limit)
    tokens = [limit.admit(call) for _ in range(calls)]
    assert not any(isinstance(token, Ticket) for token in tokens)
    return tokens


def use(limit: AdaptiveLimit, calls: int, at_once: int, ending: Ending = OK) -> None:
    """Make so many calls, while so many, it included, hold permits."""
    others = admitted(limit, at_once - 1)
    for _ in range(calls):
        limit.settle(admitted(limit, 1)[0], ending)
    for token in others:
        limit.settle(token, Ending(EndingKind.ERROR))


def test_the_defaults() -> None:
    limit = AdaptiveLimit()

    assert limit.describe()["settings"] == {
        "initial": 20,
        "min_limit": 1,
        "max_limit": 200,
        "backoff_ratio": 0.9,
        "queue": 0,
        "max_wait": 1.0,
    }
    assert limit.snapshot() == {"in_flight": 0, "queued": 0, "limit": 20, "peak": 0}
    assert (limit.kind, limit.name, repr(limit)) == ("adaptive_limit", "adaptive_limit", "AdaptiveLimit()")
    assert limit.holds_permit


@pytest.mark.parametrize(("settings", "kind", "message"), BAD)
def test_bad_settings_are_refused_by_constructor_and_update(
    settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    limit = AdaptiveLimit()
    before = limit.describe()
    with pytest.raises(kind) as constructed:
        AdaptiveLimit(**settings)
    with pytest.raises(kind) as updated:
        limit.update(**settings)

    assert str(constructed.value) == str(updated.value) == message
    assert limit.describe() == before


def test_a_full_one_says_what_happened_and_what_to_do() -> None:
    limit = AdaptiveLimit(2)
    call = call_of(limit, name="orders")
    admitted(limit, 2)
    with pytest.raises(BulkheadFullError) as caught:
        limit.admit(call)

    assert str(caught.value) == (
        "adaptive_limit of orders is full: all 2 permits are in use, and it has no queue to wait in; the dependency "
        "was not called. Make fewer calls at once, or raise queue or max_wait; the limit follows the timeouts and "
        "overloads of the dependency"
    )
    assert caught.value.reason == "full"


# Raising


def test_a_limits_worth_of_good_endings_raises_it_by_one() -> None:
    limit = AdaptiveLimit(10)
    use(limit, 9, at_once=5)
    assert limit.limit == 10
    use(limit, 1, at_once=5)
    assert limit.limit == 11
    use(limit, 10, at_once=6)
    assert limit.limit == 11
    use(limit, 1, at_once=6)
    assert limit.limit == 12


@pytest.mark.parametrize(("initial", "too_few"), [(10, 4), (9, 4), (4, 1), (3, 1)])
def test_good_endings_count_only_while_half_of_it_is_in_use(initial: int, too_few: int) -> None:
    limit = AdaptiveLimit(initial)
    use(limit, 100, at_once=too_few)
    assert limit.limit == initial
    use(limit, initial, at_once=too_few + 1)

    assert limit.limit == initial + 1


def test_a_good_ending_with_a_hint_counts() -> None:
    limit = AdaptiveLimit(1)
    use(limit, 1, at_once=1, ending=Ending(EndingKind.OK, hint=Hint(3, 1.0)))

    assert limit.limit == 2


def test_it_rises_to_its_greatest_and_no_further() -> None:
    limit = AdaptiveLimit(1, max_limit=3)
    use(limit, 1, at_once=1)
    use(limit, 2, at_once=1)
    assert limit.limit == 3
    use(limit, 50, at_once=3)

    assert limit.limit == 3
    limit.update(max_limit=4)
    use(limit, 3, at_once=3)
    assert limit.limit == 4


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize(("fewer", "raised"), [(0, 1), (1, 0)])
def test_counts_are_exact_under_threads(fewer: int, raised: int) -> None:
    limit = AdaptiveLimit(800, max_limit=1000)
    held = admitted(limit, 400)

    def work(number: int) -> None:
        for _ in range(200 - fewer * (number == 0)):
            limit.settle(admitted(limit, 1)[0], OK)

    in_threads(4, work)

    assert limit.limit == 800 + raised
    assert limit.in_flight == len(held)


# Lowering


DROPS = [
    OVERLOADED,
    Ending(EndingKind.FAILED, failure=Failure(FailureKind.OVERLOAD, counted=False)),
    Ending(EndingKind.FAILED, failure=Failure(FailureKind.TIMEOUT)),
    Ending(EndingKind.TIMED_OUT, failure=DEADLINE),
    Ending(None, TimeoutError(), Allowlist(TimeoutError)),
]
NO_DROPS = [
    Ending(EndingKind.TIMED_OUT, failure=UNSCORED_DEADLINE),
    Ending(EndingKind.FAILED, failure=Failure(FailureKind.TIMEOUT, counted=False)),
    Ending(EndingKind.FAILED, failure=Failure(FailureKind.TRANSIENT)),
    Ending(EndingKind.ERROR, ValueError()),
    Ending(None, ValueError(), Allowlist(TimeoutError)),
    Ending(EndingKind.ABANDONED),
]


@pytest.mark.parametrize("ending", DROPS)
def test_a_drop_lowers_it(ending: Ending) -> None:
    limit = AdaptiveLimit(20)
    use(limit, 1, at_once=1, ending=ending)

    assert limit.limit == 18


@pytest.mark.parametrize("ending", NO_DROPS)
def test_other_endings_change_nothing(ending: Ending) -> None:
    limit = AdaptiveLimit(20)
    use(limit, 30, at_once=20, ending=ending)

    assert limit.limit == 20
    assert limit.in_flight == 0


def test_drops_of_calls_that_began_before_the_last_decrease_are_one() -> None:
    limit = AdaptiveLimit(20)
    tokens = admitted(limit, 20)
    for token in tokens[:15]:
        limit.settle(token, OVERLOADED)
    assert (limit.limit, limit.in_flight) == (18, 5)
    use(limit, 1, at_once=1, ending=OVERLOADED)
    assert limit.limit == 16
    for token in tokens[15:]:
        limit.settle(token, OVERLOADED)

    assert (limit.limit, limit.in_flight) == (16, 0)


def test_good_endings_of_calls_that_began_before_the_last_decrease_do_not_raise_it() -> None:
    limit = AdaptiveLimit(4, backoff_ratio=0.5)
    tokens = admitted(limit, 4)
    limit.settle(tokens.pop(), OVERLOADED)
    for token in tokens:
        limit.settle(token, OK)
    assert limit.limit == 2
    use(limit, 2, at_once=1)

    assert limit.limit == 3


def test_it_is_never_below_its_least() -> None:
    limit, other = AdaptiveLimit(5, backoff_ratio=0.01), AdaptiveLimit(5, min_limit=4)
    for _ in range(3):
        use(limit, 1, at_once=1, ending=OVERLOADED)
        use(other, 1, at_once=1, ending=OVERLOADED)

    assert (limit.limit, other.limit) == (1, 4)


def test_a_lower_limit_admits_nobody_until_there_is_room() -> None:
    limit = AdaptiveLimit(4, backoff_ratio=0.5, queue=5)
    call = call_of(limit)
    tokens = admitted(limit, 4)
    waiting: Any = limit.admit(call)
    limit.settle(tokens.pop(), OVERLOADED)
    assert (limit.limit, limit.in_flight, limit.queued) == (2, 3, 1)
    limit.settle(tokens.pop(), OK)
    assert (limit.in_flight, limit.queued) == (2, 1)
    limit.settle(tokens.pop(), OK)
    assert (limit.in_flight, limit.queued) == (2, 0)
    assert waiting.acquire()
    limit.settle(waiting, OVERLOADED)  # it was granted after the decrease, so it is another one

    assert (limit.limit, limit.in_flight) == (1, 1)


def test_a_call_that_was_granted_before_the_decrease_is_of_the_same_congestion() -> None:
    limit = AdaptiveLimit(10, queue=5)
    call = call_of(limit)
    tokens = admitted(limit, 10)
    waiting: Any = limit.admit(call)
    limit.settle(tokens.pop(), OK)
    assert waiting.acquire()
    limit.settle(tokens.pop(), OVERLOADED)
    limit.settle(waiting, OVERLOADED)

    assert limit.limit == 9


def test_a_drop_that_interrupts_a_change_of_the_state_is_counted_after_it() -> None:
    limit = AdaptiveLimit(10)
    token = admitted(limit, 1)[0]
    with state_lock:
        limit.settle(token, OVERLOADED)
        assert limit.limit == 10
    assert limit.in_flight == 0

    assert limit.limit == 9


def test_a_raise_that_interrupts_a_change_of_the_state_comes_after_it() -> None:
    limit = AdaptiveLimit(1)
    token = admitted(limit, 1)[0]
    with state_lock:
        limit.settle(token, OK)
        assert limit.limit == 1
    assert limit.in_flight == 0

    assert limit.limit == 2


# Update, reset, fork


def test_an_update_keeps_the_limit_within_its_bounds() -> None:
    limit = AdaptiveLimit(20, queue=3)
    call = call_of(limit)
    tokens = admitted(limit, 20)
    waiting: Any = limit.admit(call)
    limit.update(max_limit=10, initial=10)
    assert (limit.limit, limit.in_flight, limit.queued) == (10, 20, 1)
    limit.update(min_limit=30, initial=30, max_limit=40)
    assert (limit.limit, limit.in_flight, limit.queued) == (30, 21, 0)
    assert waiting.acquire()
    limit.update(initial=35)
    assert limit.limit == 30
    limit.reset()
    assert limit.limit == 35
    for token in (*tokens, waiting):
        limit.settle(token, OK)

    assert limit.in_flight == 0


def test_reset_forgets_what_was_learned_and_no_permit() -> None:
    limit = AdaptiveLimit(10, queue=3)
    tokens = admitted(limit, 10)
    limit.settle(tokens.pop(), OVERLOADED)
    waiting: Any = limit.admit(call_of(limit))
    assert limit.snapshot() == {"in_flight": 9, "queued": 1, "limit": 9, "peak": 10}
    limit.reset()
    assert limit.snapshot() == {"in_flight": 10, "queued": 0, "limit": 10, "peak": 10}
    limit.settle(tokens.pop(), OVERLOADED)  # it was admitted before the reset

    assert (limit.limit, waiting.acquire()) == (10, True)


def test_permits_of_before_a_fork_are_free_in_the_child_and_the_limit_stays() -> None:
    limit = AdaptiveLimit(10)
    pipeline = Pipeline(limit)
    use(limit, 1, at_once=1, ending=OVERLOADED)
    tokens = admitted(limit, 9)

    def child() -> str:
        before = limit.snapshot()
        for token in tokens:
            limit.settle(token, OVERLOADED)
        return f"{before['in_flight']} {limit.in_flight} {limit.limit} {len(admitted(limit, 9))}"

    assert in_child(child) == "0 0 9 9"
    assert pipeline.get(AdaptiveLimit).in_flight == 9


# Through a pipeline


def test_it_guards_blocks_and_functions() -> None:
    limit = AdaptiveLimit(1, max_limit=1)
    with limit, pytest.raises(BulkheadFullError):
        limit.call(int)
    with limit.calling():
        assert limit.in_flight == 1

    assert limit.call(int) == 0
    assert limit.in_flight == 0


def test_a_thread_waits_in_its_queue() -> None:
    limit = AdaptiveLimit(1, max_limit=1, queue=1, max_wait=60.0)
    token = admitted(limit, 1)[0]
    served: list[int] = []
    thread = in_thread(lambda: served.append(limit.call(int)))
    wait_until(lambda: limit.queued == 1)
    limit.settle(token, OK)
    joined(thread)

    assert served == [0]
    assert limit.in_flight == 0


def test_shadow_mode_learns_and_admits_all() -> None:
    limit = AdaptiveLimit(1, mode="shadow", max_limit=1)
    pipeline = Pipeline(limit)

    assert pipeline.call(pipeline.call, int) == 0
    assert limit.in_flight == 0
