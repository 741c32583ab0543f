"""The httpx example of README.md, as it is there, against a real server."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.guards.docs_code import Fence, fences
from tests.guards.tree import ROOT
from tests.support import quotes_service

# The pipeline of another run of the README may still be alive.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:there are two pipelines")]
LONGEST = 60.0
"""The seconds after which the server is killed, whatever it does."""
URL = "http://quotes.test"


def code_of_the_readme() -> Iterator[Fence]:
    """Yield the examples of README.md up to that of an httpx client."""
    for fence in fences((ROOT / "README.md").read_text("utf-8")):
        if fence.runs:
            yield fence
            if "httpx.Client(" in fence.code:
                return
    pytest.fail("README.md has no example of an httpx client")


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a service in a process of its own."""
    command = [sys.executable, "-m", quotes_service.__name__]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(LONGEST, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, "the service did not start"
            url = f"http://127.0.0.1:{port}"
            httpx.get(url + quotes_service.SEEN, timeout=LONGEST, trust_env=False)  # waits until it answers
            yield url
        finally:
            watchdog.cancel()
            watchdog.join()
            process.kill()


@pytest.fixture
def example(server: str) -> Iterator[dict[str, Any]]:
    """What the code of the README defines, with the URL of the service in place of its own."""
    *before, fence = code_of_the_readme()
    assert fence.code.count(URL) == 1
    names: dict[str, Any] = {}
    for source in [*(one.code for one in before), fence.code.replace(URL, server)]:
        exec(compile(source, "README.md", "exec", dont_inherit=True), names)
    yield names
    names["client"].close()


def test_a_busy_service_is_asked_again(server: str, example: dict[str, Any]) -> None:
    assert example["latest_price"]("ACME") == quotes_service.PRICE

    seen = httpx.get(server + quotes_service.SEEN, trust_env=False).json()
    assert seen["/quotes/ACME"] >= 2


def test_what_is_not_there_is_an_answer(example: dict[str, Any]) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        example["latest_price"]("NONE")

    assert caught.value.response.status_code == 404
    assert "resilience" not in caught.value.response.extensions
