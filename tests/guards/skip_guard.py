"""A pytest plugin: a test that is skipped, for a reason that tests/allowed_skips.txt does not list, fails the run.

Where pytest-xdist spreads the tests over worker processes, each of them tells the process that started it.
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

ALLOWED = "tests/allowed_skips.txt"
KEY = "forbidden skips"


def read_allowed(path: Path) -> list[str]:
    """Read the patterns; no file, none allowed."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


class SkipGuard:
    """Collects the skips of a run and judges them at its end."""

    def __init__(self, allowed: list[str]) -> None:
        self.allowed = allowed
        self.complaints: list[str] = []

    def judge(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Note a skip that nobody has allowed; also what was expected to fail, whether it did or not."""
        reason = _reason(report)
        if reason is not None and not any(fnmatchcase(reason, pattern) for pattern in self.allowed):
            self.complaints.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.judge(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.judge(report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Learn what a worker process has found."""
        found: list[str] = getattr(node, "workeroutput", {}).get(KEY, [])
        self.complaints += [complaint for complaint in found if complaint not in self.complaints]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output[KEY] = self.complaints
        if self.complaints and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.complaints:
            terminalreporter.section(f"skips that {ALLOWED} does not allow", red=True)
            for complaint in self.complaints:
                terminalreporter.write_line(f"FORBIDDEN SKIP {complaint}", red=True)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    expected_failure: str | None = getattr(report, "wasxfail", None)
    if expected_failure is not None:
        return f"xfail: {expected_failure.removeprefix('reason: ')}"
    if not report.skipped:
        return None
    match report.longrepr:
        case (_, _, str(reason)):
            return reason.removeprefix("Skipped: ")
        case other:
            return str(other)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SkipGuard(read_allowed(config.rootpath / ALLOWED)))
