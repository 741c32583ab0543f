"""What a run has shown, in sentences and as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resilience._demo.records import CallRecord
from resilience._demo.run import Result
from resilience._demo.script import Arm, ServiceName
from resilience._demo.summary import NEVER, Summary, percentile, summaries

HEAD = ("service", "phase", "arm", "calls", "served", "failed", "load", "p50 ms", "p99 ms")
LEGEND = (
    "load: requests that the service counted, and while it was dead, connections; for a service of yours, attempts\n"
    "sent. p50, p99: milliseconds until the caller had an answer or an error, in 50 % and in 99 % of the calls."
)


def sentences(result: Result) -> list[str]:
    """Return what a run has shown, in one sentence for each question."""
    found = list(reversed(summaries(result).values()))
    first = found[0]
    lines = [_sentence(found, lambda one: f"{one.arm} served {one.served:,}", f"Of {first.calls:,} calls each,")]
    if first.load is None:
        lines.append(
            _sentence(found, lambda one: f"{one.attempts:,} from {one.arm}", "Requests that the services got:")
        )
    else:
        head = "While the services were sick, they counted these requests:"
        lines.append(_sentence(found, lambda one: f"{one.load:,} from {one.arm}", head))
    lines.append(_sentence(found, _no_after, "The caller of a call that failed waited on average"))
    if first.recovered is not None:
        lines.append(_sentence(found, _recovered, "Healthy again, the services served nine of ten calls"))
    if first.doubled is not None:
        lines.append(_sentence(found, lambda one: f"{one.doubled} by {one.arm}", "Orders carried out twice:"))
    return lines


def _sentence(found: Sequence[Summary], tell: Callable[[Summary], str], head: str) -> str:
    parts = [tell(one) for one in found]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{head} {listed}."


def _no_after(one: Summary) -> str:
    return f"{one.no_after:.2f} s with {one.arm}{'' if one.served < one.calls else ' (none failed)'}"


def _recovered(one: Summary) -> str:
    if one.recovered == NEVER:
        return f"never with {one.arm}"
    return f"{f'after {one.recovered:.1f} s' if one.recovered else 'at once'} with {one.arm}"


def rows(result: Result) -> list[tuple[str, ...]]:
    """Return the rows of the table, in the order of `HEAD`: for each service, phase and arm, and in all."""
    found: list[tuple[str, ...]] = []
    phases = [span.phase.name for span in result.plan.day]
    for service in result.plan.services:
        for phase in (*phases, None) if len(phases) > 1 else (None,):
            found += [_row(result, service, phase, arm) for arm in result.plan.arms]
    return found


def _row(result: Result, service: ServiceName, phase: str | None, arm: Arm) -> tuple[str, ...]:
    calls = [
        call
        for call in result.records.calls
        if call.service is service and call.arm is arm and phase in (None, call.phase)
    ]
    served = sum(call.served for call in calls)
    numbers = (len(calls), served, len(calls) - served, _load(result, service, phase, arm))
    return (str(service), phase or "all", str(arm), *map(str, numbers), *_times(calls))


def _load(result: Result, service: ServiceName, phase: str | None, arm: Arm) -> int:
    if service not in result.seen:
        return sum(number for (of, by, _), number in result.records.sent.items() if (of, by) == (service, arm))
    seen: dict[str, int] = result.seen[service][arm]["phases"]
    return sum(number for name, number in seen.items() if phase in (None, name))


def _times(calls: Sequence[CallRecord]) -> tuple[str, str]:
    ordered = sorted(call.seconds for call in calls)
    if not ordered:
        return "-", "-"
    return f"{1000 * percentile(ordered, 0.5):.0f}", f"{1000 * percentile(ordered, 0.99):.0f}"


def table(result: Result) -> list[str]:
    """Return the lines of the table as plain text."""
    lines = [HEAD, *rows(result)]
    widths = [max(len(row[column]) for row in lines) for column in range(len(HEAD))]
    text: list[str] = []
    before: tuple[str, ...] = ()
    for row in lines:
        shown = [*("" if before[:2] == row[:2] else cell for cell in row[:2]), *row[2:]]
        before = row
        cells = [
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(shown, widths, strict=True))
        ]
        text.append(" ".join(cells).rstrip())
    return text


def caution(result: Result) -> str:
    """Return a warning if the machine was too busy for the load to keep its times; empty otherwise."""
    if result.records.lag <= 0.5:
        return ""
    return (
        f"This machine was busy: calls were made up to {result.records.lag:.1f} s late, so that the numbers say less."
    )
