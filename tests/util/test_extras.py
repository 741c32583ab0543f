"""An optional package that is missing: the error names the extra. One that is broken: its own error comes out."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path

import pytest

from resilience._util.extras import import_first
from tests.guards.tree import ROOT
from tests.support.interpreter import run_python

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
BLOCK = {
    "set to None": "import sys\nfor name in {names}: sys.modules[name] = None",
    "not found": """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Finder())
""",
    "hidden without a name": """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in {names}:
            raise ImportError("blocked")
sys.meta_path.insert(0, Finder())
""",
}
"""Ways to hide packages that are installed."""
IMPORT = """
try:
    import {door}
except ImportError as error:
    print(type(error).__name__, error.name, error.path, type(error.__cause__).__name__)
    print(error)
"""


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> str:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    return name


def test_the_first_package_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = package(tmp_path, monkeypatch, "planted_good", "x = 1")

    assert import_first(there, "json").x == 1
    assert import_first("planted_missing", "json") is sys.modules["json"]


def test_a_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        import_first("planted_missing")

    error = caught.value
    assert str(error) == (
        'planted_missing is not installed; to install it: pip install "resilience-client[planted_missing]"'
    )
    assert (error.name, error.path) == ("planted_missing", None)
    assert str(error.__cause__) == "No module named 'planted_missing'"


def test_several_missing_packages() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        import_first("planted_missing", "planted_too")

    assert str(caught.value) == (
        "neither planted_missing nor planted_too is installed; to install it: "
        'pip install "resilience-client[planted_missing]" or pip install "resilience-client[planted_too]"'
    )
    assert caught.value.name == "planted_missing"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ImportError('a library of the system is missing')", "a library of the system is missing"),
        ("import planted_dependency", "No module named 'planted_dependency'"),
        ("from planted_broken import nothing", "cannot import name 'nothing'"),
        ("import planted_broken.part", "No module named 'planted_broken.part'"),
    ],
)
@pytest.mark.parametrize("others", [(), ("planted_missing",)])
def test_a_broken_package_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str, others: tuple[str, ...]
) -> None:
    broken = package(tmp_path, monkeypatch, "planted_broken", source)

    for packages in ((broken, *others), (*others, broken)):
        with pytest.raises(ImportError, match=message) as caught:
            import_first(*packages)
        assert "resilience-client" not in str(caught.value)


def test_a_broken_package_does_not_hide_one_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = package(tmp_path, monkeypatch, "planted_broken", "raise ImportError")

    assert import_first(broken, "json") is sys.modules["json"]


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCK.values(), ids=BLOCK)
@pytest.mark.parametrize(
    ("door", "names", "lines"),
    [
        (
            "resilience.httpx",
            ["httpx", "httpx2"],
            [
                "ModuleNotFoundError httpx None {cause}",
                "neither httpx nor httpx2 is installed; to install it: "
                'pip install "resilience-client[httpx]" or pip install "resilience-client[httpx2]"',
            ],
        ),
        ("resilience.httpx", ["httpx"], []),
        ("resilience.httpx", ["httpx2"], []),
        (
            "resilience.grpc",
            ["grpc"],
            [
                "ModuleNotFoundError grpc None {cause}",
                'grpc is not installed; to install it: pip install "resilience-client[grpc]"',
            ],
        ),
        (
            "resilience.grpc.aio",
            ["grpc"],
            [
                "ModuleNotFoundError grpc None {cause}",
                'grpc is not installed; to install it: pip install "resilience-client[grpc]"',
            ],
        ),
        ("resilience.testing, resilience.events, resilience.logs", ["httpx", "httpx2", "grpc", "trio", "pytest"], []),
    ],
)
def test_an_integration_whose_package_is_hidden(block: str, door: str, names: list[str], lines: list[str]) -> None:
    cause = "ImportError" if "blocked" in block else "ModuleNotFoundError"
    shown = run_python(block.format(names=names) + IMPORT.format(door=door))

    assert shown.splitlines() == [line.format(cause=cause) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("door", "hidden", "others"),
    [("resilience.httpx", "httpx._client", ["httpx2"]), ("resilience.grpc", "grpc._cython", [])],
)
def test_an_integration_whose_package_is_broken(door: str, hidden: str, others: list[str]) -> None:
    shown = run_python(BLOCK["not found"].format(names=[hidden, *others]) + IMPORT.format(door=door))

    assert shown.splitlines() == [f"ModuleNotFoundError {hidden} None NoneType", f"No module named {hidden!r}"]


@pytest.mark.parametrize("extra", ["httpx", "httpx2", "grpc"])
def test_the_extras_that_errors_name_exist(extra: str) -> None:
    assert extra in EXTRAS
