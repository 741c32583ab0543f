"""The process of a service: commands in, answers out, and an end when the commands end."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from resilience._demo.child import serve
from resilience._demo.script import Arm

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["http", "grpc"])
def test_a_service_obeys_until_there_are_no_commands(name: str) -> None:
    answers = io.StringIO()

    serve([name, "1"], ["begin\n", "enter 4\n", "report\n"], answers)

    ports, *rest, report = map(json.loads, answers.getvalue().splitlines())
    assert set(ports) == set(report) == set(Arm)
    assert rest == ["done", "done"]


@pytest.mark.parametrize(("arguments", "code"), [(["http", "1"], 0), (["nothing", "1"], 1)])
def test_the_process_ends_with_its_input(arguments: list[str], code: int) -> None:
    command = [sys.executable, "-m", "resilience._demo.child", *arguments]
    ended = subprocess.run(command, input="begin\n", capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == code, ended.stderr
    assert ended.stdout.count("done") == (code == 0)
    assert ("the service nothing 1 failed" in ended.stderr) == (code == 1)
