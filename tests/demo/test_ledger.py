"""What the demo checks itself with: it has to find every contradiction."""

from __future__ import annotations

from typing import Any

import pytest

from docs.examples.bad_minute.desk import Desk
from docs.examples.bad_minute.ledger import Attempt, Call, Fate, Ledger, Outcome, Seen, disagreements
from docs.examples.bad_minute.script import GUARDED, NAIVE, SCRIPT
from docs.examples.bad_minute.table import percentile, table
from resilience import Pipeline, Retry, backoff
from resilience.testing import virtual_time

SLOW, OVERLOADED = SCRIPT[1], SCRIPT[2]


def page(client: str = NAIVE, **facts: Any) -> tuple[Ledger, Seen]:
    """A ledger with one order that was answered at once, but for the facts given, and what the service saw."""
    ledger = Ledger("http")
    call = ledger.new_call(client, SLOW, safe=False, due=0.0)
    call.attempts = [Attempt(f"{client}-0-1", 10.0, 10.1, Fate.ANSWERED)]
    call.outcome, call.seconds = Outcome.OK, 0.1
    for name, fact in facts.items():
        setattr(call, name, fact)
    names = [attempt.name for attempt in call.attempts]
    if client == GUARDED:
        ledger.events.update({"CallEnded": 1, "AttemptEnded": len(names), "attempts of calls": len(names)})
    return ledger, Seen(dict.fromkeys(names, 1), dict.fromkeys(names, 1))


@pytest.mark.parametrize("client", [GUARDED, NAIVE])
def test_who_agrees_is_left_alone(client: str) -> None:
    assert disagreements(*page(client)) == []


def test_what_nobody_sent_and_what_arrived_twice_is_found() -> None:
    ledger, seen = page()
    seen.arrived |= {"naive-0-1": 2, "naive-7-1": 1}

    assert disagreements(ledger, seen) == [
        "http: naive-0-1 was sent once, and arrived 2 times",
        "http: naive-7-1 arrived, but no client has sent it",
    ]


@pytest.mark.parametrize("fate", [*Fate, None])
def test_what_never_arrived_needs_a_reason(fate: Fate | None) -> None:
    ledger, _ = page(attempts=[Attempt("naive-0-1", 10.0, 10.1, fate)], outcome=Outcome.FAILED)

    found = disagreements(ledger, Seen({}, {}))

    explained = fate in (Fate.REFUSED, Fate.CUT)
    assert found == ([] if explained else [f"http: naive-0-1 never arrived, and nothing explains that: {fate}"])


@pytest.mark.parametrize(
    ("began", "ended", "explained"),
    [(8.0, 8.9, False), (8.0, 9.05, True), (9.5, 9.6, True), (9.5, 12.1, False), (12.1, 12.2, False)],
)
def test_a_broken_connection_explains_it_only_around_the_death(began: float, ended: float, explained: bool) -> None:
    ledger, _ = page(attempts=[Attempt("naive-0-1", began, ended, Fate.BROKEN)], outcome=Outcome.FAILED)
    ledger.death.asked, ledger.death.confirmed, ledger.death.revived = 9.0, 9.1, 12.0

    assert (disagreements(ledger, Seen({}, {})) == []) is explained


def test_an_attempt_that_was_called_unprocessed_must_not_have_arrived() -> None:
    ledger, seen = page(attempts=[Attempt("naive-0-1", 10.0, 10.1, Fate.REFUSED)], outcome=Outcome.FAILED)

    assert disagreements(ledger, seen) == ["http: naive-0-1 was called unprocessed, but arrived"]


def test_an_answer_to_what_was_not_done_is_found() -> None:
    ledger, seen = page()
    seen.done.clear()

    assert disagreements(ledger, seen) == ["http: naive-0 was answered, but the service has not done it"]


def test_an_order_that_is_carried_out_twice_is_a_disgrace_for_the_guarded_client_only() -> None:
    for client in (GUARDED, NAIVE):
        two = [Attempt(f"{client}-0-{number}", 10.0, 10.1, Fate.ANSWERED) for number in (1, 2)]
        ledger, seen = page(client, attempts=two)

        assert seen.doubled(ledger.calls) == 1
        found = disagreements(ledger, seen)
        assert found == (["http: guarded-0 is not safe to repeat, and was carried out 2 times"] * (client == GUARDED))


def test_a_call_without_an_end_and_a_false_rejection_are_found() -> None:
    assert disagreements(*page(outcome=None)) == ["http: naive-0 never ended"]
    assert disagreements(*page(outcome=Outcome.REJECTED)) == [
        "http: naive-0 was rejected as not sent, but 1 attempts were made"
    ]


def test_the_events_of_the_library_are_compared_with_the_wire() -> None:
    ledger, seen = page(GUARDED)
    ledger.events["AttemptEnded"] += 1

    assert disagreements(ledger, seen) == ["http: the library's events count 2 (AttemptEnded), but there were 1"]


def test_the_ledger_hears_what_the_library_says_of_attempts() -> None:
    ledger = Ledger("http")
    guard = Pipeline(Retry(3, wait=backoff.fixed(1.0)), name="heard")
    ledger.listen(guard)
    errors = iter([ConnectionRefusedError("nobody there"), TimeoutError("late")])

    def send(call: Call) -> str:
        call.send()
        for error in errors:
            raise error
        return "fine"

    with virtual_time():
        call = ledger.new_call(GUARDED, SLOW, safe=True, due=0.0)
        assert guard.call(send, call) == "fine"

    assert [attempt.fate for attempt in call.attempts] == [Fate.REFUSED, Fate.CUT, None]
    assert ledger.events == {"CallEnded": 1, "AttemptEnded": 3, "attempts of calls": 3}


def test_workers_take_turns_and_who_finds_no_place_is_sent_away() -> None:
    desk = Desk(seed=1)
    desk.enter(SLOW)
    waits = [desk.arrive(f"naive-{number}-1") for number in range(SLOW.workers + SLOW.queue + 1)]

    assert [verdict.busy for verdict in waits] == [False] * (SLOW.workers + SLOW.queue) + [True]
    assert all(0.1 < verdict.wait <= SLOW.work[1] for verdict in waits[: SLOW.workers])
    assert 2 * SLOW.work[0] - 0.1 < waits[SLOW.workers].wait < 2 * SLOW.work[1]
    assert not desk.arrive("guarded-0-1").busy  # has workers of its own
    desk.enter(OVERLOADED)
    assert desk.arrive("naive-99-1").busy


def test_a_percentile_is_one_of_the_numbers() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.5, 0.51, 0.99)] == [1.0, 2.0, 3.0, 4.0]


def test_the_table_shows_phases_without_calls() -> None:
    lines = list(table(*page()))

    assert len(lines) == 1 + 2 * (len(SCRIPT) + 1)
    assert lines[-1].split() == ["naive", "1", "1", "0", "0", "1", "1", "0", "0", "1.00", "0", "100", "100"]
