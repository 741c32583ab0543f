"""The demo as a whole: it ends in time, its numbers add up, and it leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

import pytest

from tests.guards.tree import ROOT

pytestmark = pytest.mark.slow

DEMO = ROOT / "docs" / "examples" / "demo.py"
QUICK = 12.0
SLACK = 6.0  # for a machine with other work
COLUMNS = 100
NUMBERS = ["calls", "ok", "failed", "not made", "sent", "seen", "refused", "lost", "a call", "twice", "p50", "p99"]
PHASES = ["healthy", "slow", "503s, resets", "dead", "healthy again"]


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start the demo as the leader of a process group, as a shell would."""
    pipe = subprocess.PIPE
    command = [sys.executable, str(DEMO), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def ending(process: subprocess.Popen[str], timeout: float) -> tuple[str, str]:
    """Wait until nobody is left: the services have inherited stderr, which ends when the last of them has ended."""
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"after {timeout} s, the demo or a service still runs; it wrote: {process.communicate()}")


def tables(output: str) -> dict[str, dict[tuple[str, str], dict[str, float]]]:
    """Read the numbers back: service, then (phase, client), then column."""
    found: dict[str, dict[tuple[str, str], dict[str, float]]] = {}
    rows: dict[tuple[str, str], dict[str, float]] = {}
    phase = ""
    for line in output.splitlines():
        cells = line.split()
        if line in ("HTTP", "GRPC"):
            rows = found[line] = {}
        elif found and any(client in cells for client in ("guarded", "naive")) and len(cells) > len(NUMBERS):
            at = next(index for index, cell in enumerate(cells) if cell in ("guarded", "naive"))
            phase = " ".join(cells[:at]) or phase
            numbers = [0.0 if cell == "-" else float(cell) for cell in cells[at + 1 :]]
            rows[phase, cells[at]] = dict(zip(NUMBERS, numbers, strict=True))
    return found


@pytest.mark.skipif(
    [int(part) for part in version("grpcio").split(".")[:2]] < [1, 80],
    reason="a server of grpcio before 1.80 does not come back on its port",
)
def test_a_quick_demo_ends_in_time_and_its_numbers_add_up() -> None:
    begun = time.monotonic()

    with demo("--quick") as process:
        output, complaints = ending(process, 60.0)

    assert (process.returncode, complaints) == (0, ""), output
    assert time.monotonic() - begun < QUICK + SLACK
    assert [line for line in output.splitlines() if len(line) > COLUMNS] == []
    assert "Checked: " in output
    assert "breaker: closed -> open" in output
    found = tables(output)
    assert list(found) == ["HTTP", "GRPC"]
    for rows in found.values():
        assert list(rows) == [(phase, client) for phase in [*PHASES, "all"] for client in ("guarded", "naive")]
        for (_, client), row in rows.items():
            assert row["calls"] == row["ok"] + row["failed"] + row["not made"]
            assert row["sent"] == row["seen"] + row["refused"] + row["lost"]
            assert row["p50"] <= row["p99"]
            assert client == "naive" or row["twice"] == 0
            assert client == "guarded" or row["not made"] == 0
        for client in ("guarded", "naive"):
            for column in ("calls", "ok", "failed", "not made", "sent", "seen", "refused", "lost", "twice"):
                total = sum(rows[phase, client][column] for phase in PHASES)
                assert rows["all", client][column] == total
            assert rows["healthy", client]["ok"] > 0
            assert rows["dead", client]["ok"] < rows["dead", client]["calls"]
            assert rows["healthy again", client]["ok"] > 0
        assert rows["dead", "guarded"]["sent"] < rows["dead", "naive"]["sent"]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        pytest.param(lambda pid: os.killpg(pid, signal.SIGINT), 130, id="Ctrl-C"),
        pytest.param(lambda pid: os.kill(pid, signal.SIGINT), 130, id="SIGINT to the demo alone"),
        pytest.param(lambda pid: os.kill(pid, signal.SIGTERM), 143, id="SIGTERM"),
        pytest.param(lambda pid: os.kill(pid, signal.SIGKILL), -9, id="a crash"),
    ],
)
@pytest.mark.parametrize("moment", ["healthy: ", "dead: "])
def test_nobody_is_left_when_the_demo_is_ended(end: Callable[[int], None], expected: int, moment: str) -> None:
    with demo("--quick") as process:
        assert process.stdout is not None
        assert any(moment in line for line in process.stdout)

        end(process.pid)
        _, complaints = ending(process, 5.0)

    assert (process.returncode, complaints) == (expected, "")


def test_nobody_is_left_when_the_demo_is_ended_while_it_starts() -> None:
    with demo("--quick") as process:
        os.killpg(process.pid, signal.SIGTERM)
        ending(process, 5.0)

    assert process.returncode == -signal.SIGTERM
