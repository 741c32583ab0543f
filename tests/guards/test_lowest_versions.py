"""`dev.py test --lowest` pins everything that the library works with to its lower bound."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests.guards.tree import ROOT, read


@pytest.fixture
def dev() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_dependency_is_pinned_to_its_lower_bound(dev: ModuleType) -> None:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    wanted = [one for one in (*project["dependencies"], *extras) if not one.startswith("resilience-client[")]

    pins: list[str] = dev.lowest_versions()

    assert len(wanted) >= 7
    assert len(pins) == len(wanted) - len(dev.NOT_LOWEST)
    for pin in pins:
        assert any(one.startswith(pin.replace("==", ">=") + ",<") for one in wanted), pin


def test_a_dependency_without_lower_bound_is_refused(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[project]\ndependencies = ["anyio<5"]\n[project.optional-dependencies]\n'
    (tmp_path / "pyproject.toml").write_text(text, "utf-8")
    monkeypatch.setattr(dev, "ROOT", tmp_path)

    with pytest.raises(dev.DevError, match="lower bound"):
        dev.lowest_versions()
