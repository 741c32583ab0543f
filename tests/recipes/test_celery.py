"""The recipe for Celery: at SIGTERM the waits in the children of a worker end at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes.pages import code_with, wait_until

pytestmark = pytest.mark.slow

TASKS = """
from pathlib import Path

from celery import Celery

from resilience import Pipeline, Retry, backoff

app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}
waiting = Pipeline(Retry(2, wait=backoff.fixed(60.0)), name="waiting")


def no_answer():
    Path("begun").touch()
    raise ConnectionError("no answer")


@app.task(ignore_result=True)
def wait():
    try:
        waiting.call(no_answer)
    except ConnectionError as error:
        Path("note").write_text(error.__notes__[0])
        Path("note").rename("ended")


if __name__ == "__main__":
    wait.delay()
"""
OPTIONS = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "error", "-c", "1")


def test_the_waits_in_children_end_with_the_signal(tmp_path: Path) -> None:
    for folder in ("queue", "control"):
        (tmp_path / folder).mkdir()
    code = code_with("shutdown.md", "def drain_on") + code_with("celery.md", "def end_waits") + TASKS
    (tmp_path / "tasks.py").write_text(code)
    subprocess.run([sys.executable, "tasks.py"], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", *OPTIONS]
    process = subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGTERM)
        wait_until((tmp_path / "ended").exists, 30.0)  # half of the wait between two attempts
        assert (tmp_path / "ended").read_text() == "resilience: attempt 2 not made: draining"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30.0)
