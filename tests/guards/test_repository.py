"""What holds for the files of the repository, whatever is in them."""

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guards.tree import ROOT, SOURCE, python_files, read, repository_files, uses

REQUIRED = [
    ".ci/run",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "dev.py",
    "pyproject.toml",
    "src/resilience/__init__.py",
    "src/resilience/__main__.py",
    "src/resilience/py.typed",
    "tests/allowed_skips.txt",
]

# Each has a character class in it, so that it does not find itself.
PRIVATE = {
    "a path of one machine": re.compile(r"(?<![\w.])/(?:[r]oot|[w]ork|home/\w+|Users/\w+)/"),
    "a private key": re.compile(r"-{5}BEGIN [A-Z ]*[P]RIVATE KEY"),
    "an AWS key": re.compile(r"\b(?:A[K]IA|A[S]IA)[0-9A-Z]{16}\b"),
    "a token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_[p]at_\w{20,}|pypi-[A-Za-z0-9_-]{50,})"),
}

WALL_CLOCK = {
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "time.ctime",
    "time.gmtime",
    "time.localtime",
    "time.time",
    "time.time_ns",
}

LONGEST = 300
STUBS_ALLOWED_IN = {"shapes.py"}


def missing(root: Path) -> list[str]:
    return [name for name in REQUIRED if not (root / name).is_file()]


def private(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{number}: {kind}"
        for path in repository_files(root)
        for number, line in enumerate(read(path).splitlines(), start=1)
        for kind, pattern in PRIVATE.items()
        if pattern.search(line)
    ]


def wall_clock(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{use.line}: {use.name}"
        for path in python_files(root)
        for use in uses(read(path))
        if use.name in WALL_CLOCK
    ]


def too_long(root: Path) -> list[str]:
    lengths = {path.relative_to(root): len(read(path).splitlines()) for path in python_files(root)}
    return [f"{path}: {length} lines" for path, length in lengths.items() if length > LONGEST]


def unfinished(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{number}: {mark.group()}"
        for path in python_files(root)
        for number, line in enumerate(read(path).splitlines(), start=1)
        if (mark := re.search(r"\b(?:TODO|FIXME|XXX)\b", line))
    ]


def stubs(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{node.lineno}: {node.name}"
        for path in python_files(root)
        if path.name not in STUBS_ALLOWED_IN
        for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_stub(node)
    ]


def is_stub(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    match body:
        case [ast.Raise(exc=ast.Name(id="NotImplementedError") | ast.Call(func=ast.Name(id="NotImplementedError")))]:
            return True
        case _:
            return False


def test_the_required_files_exist() -> None:
    assert missing(ROOT) == []


def test_the_ci_entry_can_be_executed() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)  # on Windows everything can


def test_nothing_private_is_in_the_repository() -> None:
    assert private(ROOT) == []


@pytest.mark.parametrize("guard", [wall_clock, too_long, unfinished, stubs], ids=lambda guard: guard.__name__)
def test_the_source_keeps_the_rule(guard: Callable[[Path], list[str]]) -> None:
    assert guard(SOURCE) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert missing(tmp_path) == REQUIRED


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("a path of one machine", "cd /" + "root/project"),
        ("a path of one machine", "'/" + "work/project'"),
        ("a path of one machine", "/" + "home/ada/project"),
        ("a private key", "-----BEGIN RSA " + "PRIVATE KEY-----"),
        ("a private key", "-----BEGIN " + "PRIVATE KEY-----"),
        ("an AWS key", "key = 'AK" + "IA0123456789ABCDEF'"),
        ("a token", "ghp" + "_" + "a1B2" * 9),
    ],
)
def test_private_text_is_found(tmp_path: Path, kind: str, text: str) -> None:
    (tmp_path / "planted.txt").write_text(f"first line\n{text}\n")

    assert private(tmp_path) == [f"planted.txt:2: {kind}"]


def test_binary_files_and_harmless_paths_are_no_secrets(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\0/" + b"root/")
    (tmp_path / "text").write_text("https://example.org/network/x, re" + "work/it")

    assert private(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import time\ntime.time()", "time.time"),
        ("import time as t\nt.time()", "time.time"),
        ("def f():\n    from time import time as now", "time.time"),
        ("from datetime import datetime\ndatetime.now()", "datetime.datetime.now"),
        ("import datetime as d\nd.datetime.utcnow()", "datetime.datetime.utcnow"),
    ],
)
def test_the_wall_clock_is_found(tmp_path: Path, source: str, name: str) -> None:
    (tmp_path / "planted.py").write_text(source)

    assert wall_clock(tmp_path) == [f"planted.py:2: {name}"]


def test_a_monotonic_clock_is_no_wall_clock(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("import time\ntime.monotonic()\ntime_ = 'time.time()'\n")

    assert wall_clock(tmp_path) == []


def test_a_long_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "fits.py").write_text("x = 1\n" * 300)
    (tmp_path / "long.py").write_text("x = 1\n" * 301)

    assert too_long(tmp_path) == ["long.py: 301 lines"]


@pytest.mark.parametrize("mark", ["TO" + "DO", "FIX" + "ME", "XX" + "X"])
def test_unfinished_work_is_found(tmp_path: Path, mark: str) -> None:
    (tmp_path / "planted.py").write_text(f"x = 1\n# {mark}: more\n")

    assert unfinished(tmp_path) == [f"planted.py:2: {mark}"]


def test_stubs_are_found_except_among_the_shapes(tmp_path: Path) -> None:
    stub = "async def f():\n    '''Later.'''\n    raise NotImplementedError('later')\n"
    honest = "def g(x):\n    if x:\n        raise NotImplementedError\n    return x\n"
    (tmp_path / "planted.py").write_text(stub + honest)
    (tmp_path / "shapes.py").write_text(stub)

    assert stubs(tmp_path) == ["planted.py:1: f"]
