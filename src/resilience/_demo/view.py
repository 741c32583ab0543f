"""What is shown while the demo runs: a live table on a terminal, and plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from resilience import CircuitBreaker, Pipeline
from resilience._demo.records import BreakerRecord, CallRecord
from resilience._demo.run import Result
from resilience._demo.script import BIN, Arm, ServiceName, Span
from resilience._util.clock import clock

RECENT = 2.0
"""The seconds over which the live table counts."""
COLOURS = {"closed": "green", "half_open": "yellow", "open": "red", "isolated": "red"}


class PlainView:
    """Prints a line for each phase, and for each change of a breaker.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._result: Result | None = None

    def begin(self, result: Result, pipelines: Sequence[Pipeline[Any]]) -> None:
        """Take the result whose clock is shown."""
        self._result = result

    def entered(self, span: Span) -> None:
        """Print the phase."""
        self._say(f"{span.start:6.2f} s  {span.phase.name}: {span.phase.words}")

    def ended(self, record: CallRecord) -> None:
        """Print nothing: there are many."""

    def changed(self, record: BreakerRecord, why: str) -> None:
        """Print the change."""
        self._say(f"{record.at:6.2f} s    breaker of {record.service}: {record.state}{f', {why}' if why else ''}")


class LiveView:
    """Shows how far the run is, and for each arm its success, its attempts and its breakers, several times a second.

    Args:
        console: the terminal.

    It is a context manager: the table stays on the screen at the end.
    """

    def __init__(self, console: Console) -> None:
        self._result: Result | None = None
        self._pipelines: Sequence[Pipeline[Any]] = ()
        self._span: Span | None = None
        self._recent: deque[tuple[float, CallRecord]] = deque()
        self._totals: dict[Arm, list[int]] = {arm: [0, 0] for arm in Arm}
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=4)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()
        self._pipelines = ()

    def begin(self, result: Result, pipelines: Sequence[Pipeline[Any]]) -> None:
        """Show this run from now on."""
        self._result, self._pipelines = result, pipelines
        self._totals = {arm: [0, 0] for arm in Arm}

    def entered(self, span: Span) -> None:
        """Show the phase."""
        self._span = span

    def ended(self, record: CallRecord) -> None:
        """Count the call."""
        self._recent.append((clock.monotonic(), record))
        total = self._totals[record.arm]
        total[0] += record.served
        total[1] += 1

    def changed(self, record: BreakerRecord, why: str) -> None:
        """Do nothing: the table reads the states of the breakers."""

    def render(self) -> RenderableType:
        """Return the table of this moment."""
        result = self._result
        if result is None:
            return Text("starting two services ...")
        now = result.records.now()
        while self._recent and self._recent[0][0] < clock.monotonic() - RECENT:
            self._recent.popleft()
        plan = result.plan
        table = Table(title=None)
        table.add_column("arm")
        for service in plan.services:
            table.add_column(f"{service}: served", justify="right")
            table.add_column("attempts/s", justify="right")
            table.add_column("breaker")
        table.add_column("served in all", justify="right")
        for arm in plan.arms:
            cells: list[RenderableType] = [arm]
            for number, service in enumerate(plan.services):
                cells += self._cells(result, arm, service, self._pipelines[number], now)
            served, ended = self._totals[arm]
            table.add_row(*cells, f"{served} of {ended}", style="bold" if arm is Arm.STANDARD else "")
        where = Text()
        if self._span is not None:
            where.append(f"{min(now, plan.seconds):5.1f} of {plan.seconds:.0f} s  ")
            where.append(self._span.phase.name, style="bold red" if self._span.phase.sick else "bold green")
            where.append(f": {self._span.phase.words}")
        bar = Table.grid()
        bar.add_row(ProgressBar(total=plan.seconds, completed=min(now, plan.seconds), width=60))
        return Group(where, bar, table)

    def _cells(
        self, result: Result, arm: Arm, service: ServiceName, pipeline: Pipeline[Any], now: float
    ) -> list[RenderableType]:
        recent = [one.served for _, one in self._recent if one.arm is arm and one.service is service]
        good = sum(recent) / len(recent) if recent else 0.0
        colour = "green" if good >= 0.9 else "yellow" if good >= 0.5 else "red"
        last = int(now / BIN) - 1
        sent = sum(result.records.sent[service, arm, at] for at in (last, last - 1)) / (2 * BIN)
        state = str(pipeline.get(CircuitBreaker).state) if arm is Arm.STANDARD else ""
        return [
            Text(f"{good:.0%}" if recent else "-", style=colour),
            f"{sent:.0f}",
            Text(state.replace("_", "-") or "none", style=COLOURS.get(state, "dim")),
        ]
