"""One bad day: a server loses most of its capacity for a while, and its clients meet that in three ways.

Bare calls make one attempt, naive ones retry three times at once, the others go through
`standard(timeout=3, attempt_timeout=1)`. An attempt has a timeout of 1 s everywhere, also the only one of a bare call.
`tests/support/bad_day.py` describes server and clients. 30 clients make 210 calls a second, in an open loop, to a
server of 300 a second, whose capacity falls to a fifth.
"""

from __future__ import annotations

from functools import cache
from statistics import mean

import pytest

from tests.support.bad_day import BEFORE, RATE, REMAINING, SERVICE, WORKERS, Outcome, bare, errors, fall, guarded, naive

SEEDS = [1, 2, 3, 4, 5]
FALLS = [3, 7, 10, 20]
CAPACITY = WORKERS / SERVICE

pytestmark = pytest.mark.no_cover  # it takes three times as long with it, and other tests reach the same lines

each_seed = pytest.mark.parametrize("seed", SEEDS)
each_fall = pytest.mark.parametrize("seconds", FALLS)


def after(seconds: int) -> int:
    """Return for how long calls go on after a fall: until bare calls have recovered, and longer."""
    return max(20, 2 * seconds)


@cache
def run_bare(seconds: int, seed: int) -> Outcome:
    return fall(bare, seconds, seed, after=after(seconds))


def run_guarded(seconds: int, seed: int, clients: int = 30) -> Outcome:
    return fall(guarded, seconds, seed, clients=clients, after=after(seconds))


def test_standard_recovers_from_a_short_fall_and_naive_retries_do_not() -> None:
    outcome = fall(guarded, 3, 1, after=8)
    collapsed = fall(naive, 3, 1, after=3)

    assert outcome.recovery() <= 5.0
    assert outcome.attempts_per_call(BEFORE) <= 1.05
    assert sum(collapsed.good[-3:]) == 0


@pytest.mark.slow
@each_fall
def test_bare_calls_recover_once_the_queue_is_shorter_than_their_timeout(seconds: int) -> None:
    queue_at_end = (RATE - REMAINING * CAPACITY) * seconds
    queue_of_a_second = CAPACITY
    expected = (queue_at_end - queue_of_a_second) / (CAPACITY - RATE)

    assert mean(run_bare(seconds, seed).recovery() for seed in SEEDS[:3]) == pytest.approx(expected, abs=1.5)


@pytest.mark.slow
@each_seed
@each_fall
def test_standard_recovers_within_5_s_and_loses_fewer_calls_or_few_more_in_a_short_fall(
    seconds: int, seed: int
) -> None:
    outcome = run_guarded(seconds, seed)
    most = 1.1 if seconds == 3 else 0.6

    assert outcome.recovery() <= 5.0
    assert outcome.attempts_per_call(BEFORE) <= 1.05
    assert outcome.lost <= most * run_bare(seconds, seed).lost


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [3, 20])
def test_naive_retries_do_not_recover(seconds: int) -> None:
    outcome = fall(naive, seconds, SEEDS[0], after=10)

    assert outcome.recovery() == 10.0
    assert sum(outcome.good[-10:]) == 0
    assert mean(outcome.attempts[-10:]) > 2 * CAPACITY


@pytest.mark.slow
def test_naive_retries_do_not_recover_in_half_a_minute_either() -> None:
    assert sum(fall(naive, 3, SEEDS[0], after=30).good[-30:]) == 0


@pytest.mark.slow
@each_seed
def test_standard_recovers_within_7_s_and_loses_fewer_calls_if_the_load_comes_from_100_clients(seed: int) -> None:
    outcome = run_guarded(10, seed, clients=100)

    assert outcome.recovery() <= 7.0
    assert outcome.lost <= 0.65 * run_bare(10, seed).lost


@pytest.mark.slow
@each_seed
def test_standard_recovers_within_14_s_and_loses_fewer_calls_if_the_load_comes_from_300_clients(seed: int) -> None:
    outcome = run_guarded(10, seed, clients=300)

    assert outcome.recovery() <= 14.0
    assert outcome.lost <= 0.9 * run_bare(10, seed).lost


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS[:2])
def test_standard_mends_most_random_errors(seed: int) -> None:
    assert errors(guarded, 0.1, seed).success >= errors(guarded, 0.3, seed).success >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_standard_is_no_worse_than_bare_calls_where_every_second_attempt_fails(seed: int) -> None:
    assert errors(guarded, 0.5, seed).success >= errors(bare, 0.5, seed).success
