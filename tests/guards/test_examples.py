"""The examples run, and one sees what their first lines say."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.guards.tree import ROOT

pytestmark = pytest.mark.slow

SEEN = {
    "gateway": [
        r"common with 5\.0 s: 200 after .*gateway has \d\.\d s left, stock has \d\.\d s left, price has \d",
        r"rare   with 0\.4 s: 504 after \d\.\d s: the deadline of this request has passed",
        r"common with 5\.0 s: 503 after .*a dependency of this service is unavailable",
    ],
    "grpc_tiers": [
        r"tells nothing: +A 3, B 9 calls, .*UNAVAILABLE",
        r"tells its attempts: +A 3, B 5 calls, .*UNAVAILABLE",
        r"says that it has tried: +A 1, B 3 calls, .*UNAVAILABLE",
        r"A has [0-2]\.\d s left, B has [01]\.\d s left",
        r"gives 0\.4 s: .* \d\.\d s: DEADLINE_EXCEEDED",
    ],
    "batch_job": [
        r"batch 4: r2 r5 r8 r12 r15 r18 r22",
        r"<BatchResult of 25 items: 1 failed, 24 succeeded> in 2 rounds",
        r"\(empty\): failed, 'InvalidArgument', not_retryable",
        r"records written twice: 0",
        r"<BatchResult of 24 items: 10 unknown, 14 succeeded> in 2 rounds",
        r"records written twice: 0",
    ],
    "poll_job": [
        r"the service answers 503: down",
        r"the circuit breaker is open",
        r"the circuit breaker is closed",
        r"the job is done",
        r"PollTimeoutError: \d+ polls; the last state was '1 %'",
    ],
}
"""What one sees of each example, in this order."""


@pytest.mark.parametrize("name", SEEN)
def test_an_example_shows_what_it_says(name: str) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "docs" / "examples" / f"{name}.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(".*".join(SEEN[name]), done.stdout, re.DOTALL), done.stdout


def test_every_example_is_run_and_short() -> None:
    examples = {path.stem: path for path in (ROOT / "docs" / "examples").glob("*.py") if path.stem != "demo"}
    page = (ROOT / "docs" / "examples" / "README.md").read_text("utf-8")

    assert examples.keys() == SEEN.keys()
    for name, path in examples.items():
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 150, name
        assert f"python docs/examples/{name}.py" in text
        assert f"[{name}.py]({name}.py)" in page
