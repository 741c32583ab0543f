"""What `import resilience` loads, and the names that it then has."""

from __future__ import annotations

import pytest

import resilience
from tests.support.interpreter import run_python


def test_lazy_parts_and_unknown_names() -> None:
    assert resilience.testing.virtual_time is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = resilience.nothing


@pytest.mark.slow
def test_the_import_is_light() -> None:
    code = """
import sys, resilience
heavy = {"httpx", "httpx2", "grpc", "prometheus_client", "trio", "asyncio", "anyio"}
print(sorted(heavy & set(sys.modules)))
"""
    assert run_python(code).strip() == "[]"
