"""The recipe for gunicorn, as the page has it, with a real gunicorn."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.guards.docs_code import fences
from tests.guards.tree import ROOT
from tests.support.threads import wait_until

pytestmark = pytest.mark.slow
PAGE = ROOT / "docs" / "observe.md"
WORKERS = 2


def recipe() -> tuple[str, str]:
    """The configuration and the application of the page."""
    code = [fence.code for fence in fences(PAGE.read_text("utf-8")) if fence.runs]
    (configuration,) = [one for one in code if "def child_exit" in one]
    (application,) = [one for one in code if "def app(" in one]
    return configuration, application


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def gunicorn(folder: Path, *options: str) -> Iterator[tuple[httpx.Client, int]]:
    """Run the recipe; yield a client that uses a connection for each request, and the number of the first process."""
    configuration, application = recipe()
    (folder / "gunicorn.conf.py").write_text(configuration)
    (folder / "app.py").write_text(application)
    (folder / "metrics").mkdir()
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", str(WORKERS), "--log-level", "error", "--no-control-socket", *options, "app:app"]
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics")}
    )
    limits = httpx.Limits(max_keepalive_connections=0)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", limits=limits, trust_env=False) as client:
            wait_until(lambda: answers(client))
            yield client, process.pid
    finally:
        process.terminate()
        assert process.wait(30) == 0


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/metrics").status_code == 200
    except httpx.TransportError:
        return False


def values(client: httpx.Client, name: str) -> dict[str, float]:
    """The values of a metric, by those of its last label beside the policy."""
    text = client.get("/metrics").text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples if one.name == name]
    return {one.labels.get("outcome") or one.labels.get("policy", ""): one.value for one in samples}


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["each loads the application", "preloaded"])
def test_sums_are_exact_and_the_gauges_of_a_dead_worker_go(tmp_path: Path, options: tuple[str, ...]) -> None:
    with gunicorn(tmp_path, *options) as (client, first):
        made: list[None] = []

        def limit() -> float:
            assert client.get("/").content == b"42\n"
            made.append(None)
            return values(client, "resilience_bulkhead_limit").get("bulkhead", 0.0)

        wait_until(lambda: limit() == 100.0 * WORKERS)  # each worker has had a call
        assert values(client, "resilience_calls_total")["ok"] == len(made)

        files = (tmp_path / "metrics").glob("counter_*.db")
        workers = {int(one.stem.removeprefix("counter_")) for one in files} - {first}
        assert len(workers) == WORKERS
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        wait_until(lambda: values(client, "resilience_bulkhead_limit").get("bulkhead", 0.0) == 0.0)
        assert values(client, "resilience_calls_total")["ok"] == len(made)
        wait_until(lambda: limit() == 100.0 * WORKERS)
        assert values(client, "resilience_calls_total")["ok"] == len(made)
