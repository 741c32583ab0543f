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


PLANTED = """
import sys
sys._is_gil_enabled = lambda: {enabled}
import resilience
import resilience.testing
"""


def test_one_warning_tells_that_free_threaded_python_is_not_supported() -> None:
    printed = run_python(PLANTED.format(enabled=False))

    assert printed.count("ResilienceWarning: resilience does not support Python without the GIL") == 1
    assert "<string>:4: ResilienceWarning" in printed


@pytest.mark.parametrize("code", [PLANTED.format(enabled=True), "import resilience"])
def test_nothing_warns_where_the_gil_is_on(code: str) -> None:
    assert run_python(code, PYTHONWARNINGS="error") == ""


def test_nothing_warns_where_python_has_no_such_question() -> None:
    assert run_python("import sys\nvars(sys).pop('_is_gil_enabled', None)\nimport resilience") == ""
