"""SDKs export classes of httpx as their own, and give them another `__module__`."""

from __future__ import annotations

import pytest

from tests.support.interpreter import run_python

pytestmark = [pytest.mark.slow, pytest.mark.sdk]

PLAIN = "ResilientTransport"
ASYNC = "AsyncResilientTransport"


@pytest.mark.parametrize(
    ("sdk", "absent", "transport"),
    [
        ("groq", "httpx2", PLAIN),
        ("openai", "httpx", PLAIN),
        ("groq", "httpx2", ASYNC),
        ("openai", "httpx", ASYNC),
        ("anthropic", "httpx", PLAIN),
        ("ollama", "httpx2", PLAIN),
    ],
)
def test_a_transport_without_an_inner_one_can_be_made_beside_an_sdk(sdk: str, absent: str, transport: str) -> None:
    """There may be one of httpx and httpx2 only."""
    code = f"""
import sys
sys.modules[{absent!r}] = None
import {sdk}, resilience, resilience.httpx
print(resilience.httpx.{transport}(resilience.Retry()))
"""
    assert transport in run_python(code)
