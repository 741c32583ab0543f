"""What is printed about the calls: one line for each phase and client, plain text, within 100 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from docs.examples.bad_minute.ledger import Call, Ledger, Outcome, Seen, never_arrived
from docs.examples.bad_minute.script import CLIENTS, SCRIPT

LEGEND = """\
failed     calls whose caller got an error; not made: rejected by a policy, so that nothing was sent
sent       attempts that the client made = seen by the service + refused (no connection) + lost
a call     attempts per call, of the calls that were made
twice      orders (the calls that are not safe to repeat) that were carried out more than once
p50, p99   milliseconds until the caller had an answer or an error, in half and in 99% of the calls"""


def table(ledger: Ledger, seen: Seen) -> Iterator[str]:
    """Yield the lines of a table."""
    head = (
        "phase", "client", "calls", "ok", "failed", "not made",
        "sent", "= seen", "+ refused", "+ lost", "a call", "twice", "p50", "p99",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = [head]
    for phase in (*SCRIPT, None):
        for client in CLIENTS:
            name = phase.name if phase else "all"
            rows.append((name if client == CLIENTS[0] else "", client, *_cells(ledger, seen, ledger.of(client, phase))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        cells = [cell.ljust(width) if column < 2 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        yield " ".join(cells).rstrip()


def _cells(ledger: Ledger, seen: Seen, calls: Sequence[Call]) -> Iterator[str]:
    outcomes = [call.outcome for call in calls]
    sent = sum(len(call.attempts) for call in calls)
    refused, lost = never_arrived(ledger, seen, calls)
    made = sum(bool(call.attempts) for call in calls)
    seconds = sorted(call.seconds for call in calls)
    numbers = (
        len(calls), *(outcomes.count(outcome) for outcome in (Outcome.OK, Outcome.FAILED, Outcome.REJECTED)),
        sent, seen.arrivals(calls), refused, lost,
    )  # fmt: skip
    yield from map(str, numbers)
    yield f"{sent / made:.2f}" if made else "-"
    yield str(seen.doubled(calls))
    yield from (f"{1000 * percentile(seconds, share):.0f}" if seconds else "-" for share in (0.5, 0.99))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest number that is no less than this share of them."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
