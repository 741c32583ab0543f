"""The pictures in the documentation are what the scripts beside them draw."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPTS = [path for path in sorted(DOCS.glob("*.py")) if "def draw(" in path.read_text("utf-8")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_picture_is_what_its_script_draws(script: Path) -> None:
    module = load(script)

    assert module.TARGET.read_text("utf-8") == module.draw()


def test_every_picture_is_shown_and_drawn_by_a_script() -> None:
    pages = "".join(page.read_text("utf-8") for page in DOCS.glob("*.md"))
    pictures = {path.name for path in DOCS.glob("*.svg")}

    assert pictures
    assert pictures == {load(script).TARGET.name for script in SCRIPTS}
    assert {name for name in pictures if f"({name})" not in pages} == set()
