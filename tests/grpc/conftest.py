"""What the tests of gRPC share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from tests.grpc.processes import server_process
from tests.grpc.servers import Service, serving
from tests.grpc.table import CELLS, LEFT_OUT, SERVERS, Cell
from tests.grpc.table_calls import Opener, Outcome, Run, RunCell, guarded_channel


@pytest.fixture(scope="module")
def run_cell() -> Iterator[RunCell]:
    """What runs a cell of the table; cells share a process for each kind of server, until one of them kills it."""
    numbers = count()
    with ExitStack() as stack:
        servers = {kind: [stack.enter_context(server_process(kind))] for kind in SERVERS}

        def run(cell: Cell, opener: Opener = guarded_channel) -> Outcome:
            cell_run = Run(cell, servers[cell.server][-1], f"{cell} {next(numbers)}", opener)
            try:
                return cell_run.run()
            finally:
                for another in cell_run.servers[1:]:
                    stack.callback(another.kill)
                    servers[cell.server].append(another)

        yield run


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cells of the table ran, and what was left out for which reason."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    ran = [report for report in reports if "test_grpc_table.py::test_a_" in report.nodeid and report.when == "call"]
    if ran:
        guarded = sum("test_a_guarded_channel" in report.nodeid for report in ran)
        terminalreporter.section("table of RPCs")
        terminalreporter.line(
            f"{guarded} of {len(CELLS)} cells ran, and {len(ran) - guarded} without a pipeline; "
            f"{sum(report.passed for report in ran)} passed; {len(LEFT_OUT)} are left out:"
        )
        for reason, number in Counter(LEFT_OUT.values()).most_common():
            terminalreporter.line(f"{number:6d}: {reason}")
