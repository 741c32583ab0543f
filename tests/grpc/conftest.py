"""What the tests of gRPC share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.grpc.servers import Service, serving
from tests.grpc.table import CELLS, LEFT_OUT


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
