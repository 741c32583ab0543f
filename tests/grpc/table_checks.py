"""Compares what became of a call with what the table expects of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

import grpc

from resilience import DeadlineExceededError
from tests.grpc.server_process import Attempt
from tests.grpc.table import Cell, Expected
from tests.grpc.table_calls import Outcome
from tests.support.timing import at_most

EARLY = 0.02
"""Seconds by which clocks and timers of two processes may differ."""
CANCELLATIONS: Mapping[str, type[BaseException]] = {
    "future": grpc.FutureCancelledError,
    "iterate": grpc.RpcError,
    "aio": asyncio.CancelledError,
    "aio_write": asyncio.CancelledError,
}
"""What calls raise that are cancelled."""
ROUNDED_UP = 1.02
"""gRPC rounds the deadline that it sends up by at most about one hundredth."""


def differences(cell: Cell, outcome: Outcome, *, plain: bool = False) -> list[str]:
    """Return in what a call differs from what is expected of it; `plain` for a channel without a pipeline."""
    found = [*_outcome(cell, outcome, plain), *_time(cell.expected, outcome), *_server(cell, outcome)]
    if outcome.left:
        found.append(f"left after the channel was closed: {outcome.left}")
    return found


def seen_differences(cell: Cell, outcome: Outcome) -> list[str]:
    """Return in what the code, the messages, the time and the attempts differ from what is expected, and no more."""
    found: list[str] = []
    if outcome.code not in cell.expected.codes:
        found.append(f"code {outcome.code}, not {' or '.join(cell.expected.codes)} ({outcome.error!r})")
    elif outcome.messages != _messages(cell):
        found.append(f"messages {outcome.messages}, not {_messages(cell)}")
    elif isinstance(outcome.error, DeadlineExceededError) is not cell.expected.ours:
        found.append(f"{outcome.error!r}")
    return [*found, *_time(cell.expected, outcome), *_server(cell, outcome)]


def _outcome(cell: Cell, outcome: Outcome, plain: bool) -> Iterator[str]:
    """Compare what the caller sees."""
    expected, error = cell.expected, outcome.error
    if outcome.code not in expected.codes:
        yield f"code {outcome.code}, not {' or '.join(expected.codes)} ({error!r})"
        return
    messages = _messages(cell)
    if outcome.messages != messages:
        yield f"messages {outcome.messages}, not {messages}"
    if outcome.reported and outcome.reported != outcome.code:
        yield f"code() of the call is {outcome.reported}, its outcome {outcome.code}"
    if outcome.code == "OK" and outcome.reported and outcome.attempt != str(expected.calls):
        yield f"initial metadata of attempt {outcome.attempt!r}, not {expected.calls}"
    if cell.scenario.action.startswith("cancel"):
        if not outcome.cancelled:
            yield "cancelled() of the call is not True"
        if not isinstance(error, CANCELLATIONS[cell.way]):
            yield f"raised {error!r}, not {CANCELLATIONS[cell.way].__name__}"
    if plain or outcome.code in ("OK", "CANCELLED"):
        return
    if not isinstance(error, grpc.RpcError):
        yield f"{error!r} is no RpcError"
    if cell.way.startswith("aio") and not isinstance(error, grpc.aio.AioRpcError):
        yield f"{error!r} is no AioRpcError"
    if isinstance(error, DeadlineExceededError) is not expected.ours:
        yield f"{type(error).__name__} is {'no' if expected.ours else 'a'} DeadlineExceededError"
    details = _details(error)
    if not expected.ours and not cell.scenario.action and details != "on purpose":
        yield f"details {details!r}, not those of the server"


def _details(error: Any) -> str:
    details: str = error.details()
    return details


def _messages(cell: Cell) -> list[str]:
    """Return the messages that are to be received: those of the last attempt."""
    expected = cell.expected
    number = expected.messages
    if number is None:
        number = 0 if expected.codes != ("OK",) else 3 if cell.streams else 1
    return [f"{expected.calls}.{index}" for index in range(number)]


def _time(expected: Expected, outcome: Outcome) -> Iterator[str]:
    """Compare how long the call took."""
    taken, most = outcome.ended - outcome.acted, at_most(expected.seconds) + outcome.stalled
    if taken > most:
        yield f"took {taken:.3f} s, not at most {most:.3f} s"
    if outcome.ended - outcome.started < expected.least - EARLY:
        yield f"took {outcome.ended - outcome.started:.3f} s, not at least {expected.least} s"
    if expected.gap is not None and len(outcome.attempts) > 1:
        gap = outcome.attempts[1].at - outcome.attempts[0].at
        if not expected.gap[0] - EARLY <= gap <= at_most(expected.gap[1]) + outcome.stalled:
            yield f"{gap:.3f} s between the attempts, not {expected.gap}"


def _server(cell: Cell, outcome: Outcome) -> Iterator[str]:
    """Compare what the server has seen."""
    expected, attempts = cell.expected, outcome.attempts
    if [attempt.number for attempt in attempts] != [*range(1, expected.calls + 1)]:
        yield f"attempts {[attempt.number for attempt in attempts]}, not 1 to {expected.calls}"
        return
    for attempt in attempts:
        if tuple(attempt.requests) != cell.requests:
            yield f"requests {attempt.requests} in attempt {attempt.number}, not {cell.requests}"
    ended = tuple(attempt.ended for attempt in attempts)
    if expected.ended is not None and ended != expected.ended:
        yield f"attempts ended {ended}, not {expected.ended}"
    yield from _remaining(expected, attempts)


def _remaining(expected: Expected, attempts: list[Attempt]) -> Iterator[str]:
    """Compare the deadlines that the server has seen."""
    remaining = [inf if attempt.remaining is None else attempt.remaining for attempt in attempts]
    if expected.remaining == inf and remaining != [inf] * len(attempts):
        yield f"remaining {remaining}, not no deadline"
    elif expected.remaining is not None and expected.remaining != inf:
        if remaining != sorted(remaining, reverse=True) or len(set(remaining)) < len(remaining):
            yield f"remaining {remaining} does not shrink"
        if remaining[0] > expected.remaining * ROUNDED_UP:
            yield f"remaining {remaining}, not at most {expected.remaining}"
