"""The map of the rooms, `dev.py map`, and the picture of it in the documentation."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    """The script that draws the map."""
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rooms = load()


def plant(source: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return source


def test_the_picture_in_the_documentation_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "design.md").read_text("utf-8")

    assert f"```mermaid\n{rooms.mermaid(rooms.SOURCE)}\n```" in page


def test_the_documentation_has_a_sentence_for_each_room() -> None:
    page = (ROOT / "docs" / "design.md").read_text("utf-8")

    assert [room for room in rooms.imports(rooms.SOURCE) if f"| `{room}" not in page] == []


def test_dev_py_prints_the_map() -> None:
    command = [sys.executable, "dev.py", "map"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout

    assert printed.rstrip("\n") == rooms.table(rooms.SOURCE)
    assert "_policies" in printed


def test_a_map(tmp_path: Path) -> None:
    source = plant(
        tmp_path,
        {
            "__init__.py": "from resilience._high.one import x\n",
            "_high/one.py": "from resilience._low import two\nimport resilience._low.three\nimport json\n",
            "_low/__init__.py": "",
            "_low/two.py": "def f():\n    from resilience.ground import g\n",
            "_low/three.py": "from resilience._low import two\n",
            "ground.py": "g = 1\n\n",
        },
    )

    assert rooms.imports(source) == {"resilience": {"_high"}, "_high": {"_low"}, "_low": {"ground"}, "ground": set()}
    assert rooms.table(source, every_module=True).splitlines() == [
        "room           files  lines  imports",
        "resilience         1      1  _high",
        "      1  __init__",
        "_high              1      3  _low",
        "      3  _high.one",
        "_low               3      3  ground",
        "      0  _low",
        "      1  _low.three",
        "      2  _low.two",
        "ground             1      2  nothing",
        "      2  ground",
        "total              6      9",
    ]


def test_arrows_that_follow_from_others_are_left_out(tmp_path: Path) -> None:
    source = plant(
        tmp_path,
        {
            "top.py": "import resilience.middle, resilience.ground",
            "middle.py": "import resilience.ground",
            "ground.py": "",
        },
    )

    assert rooms.mermaid(source).splitlines() == [
        "flowchart TD",
        "    room_top([top])",
        "    room_middle([middle])",
        "    room_ground([ground])",
        "    room_middle --> room_ground",
        "    room_top --> room_middle",
    ]


def test_a_circle_of_rooms_is_named(tmp_path: Path) -> None:
    source = plant(tmp_path, {"one.py": "import resilience.two", "two.py": "import resilience.one", "three.py": ""})

    with pytest.raises(ValueError, match="in a circle: one, two"):
        rooms.table(source)
