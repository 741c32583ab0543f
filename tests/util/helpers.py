"""What the tests of the utilities share."""

from __future__ import annotations

import importlib.util
from types import ModuleType


def loaded_again(name: str) -> ModuleType:
    """Run a module once more, and leave the one that everybody uses alone."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
