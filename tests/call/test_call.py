"""What is known about a call beforehand."""

from __future__ import annotations

from typing import Any

from resilience import Pipeline
from resilience._call.call import CallOptions


def test_a_binding_knows_its_site() -> None:
    pipeline: Pipeline[Any] = Pipeline(name="known")
    _, binding = pipeline.entry()

    assert isinstance(binding, CallOptions)
    assert binding.pipeline.name == "known"
