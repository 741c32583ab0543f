"""The tests mirror the modules: each module has a test file by its path, each test file a module, and none is long."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "resilience"
TESTS = ROOT / "tests"

FREE = {
    "benchmarks",
    "composition",
    "guards",
    "mutation",
    "property",
    "recipes",
    "structure",
    "support",
    "typing",
}
"""Folders whose tests are of no single module."""
NOT_TESTED_BY_PATH = {"__init__", "__main__"}
"""An `__init__` gathers names: those of public rooms are tested in structure/test_surface.py."""
TESTED_WITH = {
    "_policies/permits": "_policies/bulkhead",
    "_drivers/async_": "_drivers/sync",
    "_drivers/async_gate": "_drivers/sync_gate",
    "_drivers/contest": "_drivers/sync_race",
    "_drivers/async_substitute": "_drivers/sync_substitute",
    "_drivers/phases": "_pipeline/generators",
    "_policies/phases": "_pipeline/generators",
    "_call/generator_call": "_pipeline/generators",
    "_drivers/fault": "_policies/chaos",
    "_runtime/racing": "_runtime/asyncio_race",
    "_drivers/async_keyed": "_drivers/sync_keyed",
    "testing/_connection": "testing/_faulty_server",
    "testing/_faults": "testing/_faulty_server",
    "testing/_ports": "testing/_faulty_server",
    "testing/_rpc_faults": "testing/_faulty_grpc_server",
    "testing/_rpcs": "testing/_faulty_grpc_server",
    "testing/_faulty_requests": "testing/_faulty_server",
    "httpx/_routed": "httpx/_install",
    "httpx/_lifetime": "httpx/_transport",
    "events/_policy_types": "events/_types",
    "grpc/_call": "grpc/_guard",
    "grpc/_callbacks": "grpc/_future",
    "grpc/_running": "grpc/_future",
    "grpc/_head": "grpc/_stream",
    "grpc/_iterated": "grpc/_stream",
    "grpc/_callables": "grpc/_channels",
    "grpc/_rpcs": "grpc/_interceptors",
    "_pipeline/health": "_pipeline/readiness",
    "_pipeline/registry": "_pipeline/pipeline",
    "grpc/aio/_attempts": "grpc/_attempts",
    "grpc/aio/_outcomes": "grpc/_outcomes",
    "grpc/aio/_channels": "grpc/_channels",
    "grpc/aio/_callables": "grpc/aio/_unary",
    "_call/silences": "httpx/_body",
    "jobs/_batch_job": "jobs/_retry_failed",
    "jobs/_guard": "jobs/_poll",
    "jobs/_result": "jobs/_retry_failed",
    "_demo/arms": "_demo/command",
    "_demo/records": "_demo/load",
    "_demo/remote": "_demo/command",
    "_demo/run": "_demo/command",
}
"""Modules whose tests are those of another one: each test of the drivers makes plain calls, and awaited ones."""
MOST_LINES = 600

Home = tuple[str, str]
"""A folder below tests, and what the names of the files in it begin with after "test_"."""


def home_of(module: str) -> Home:
    """Return where the tests of a module are, given its path below the source without the suffix."""
    *rooms, name = (part.strip("_") for part in module.split("/"))
    return "/".join(rooms), name


def modules(source: Path) -> list[str]:
    """The paths of all modules that are to be tested by their path."""
    paths = [path.relative_to(source).with_suffix("") for path in sorted(source.rglob("*.py"))]
    return [path.as_posix() for path in paths if path.name not in NOT_TESTED_BY_PATH]


def rooms(source: Path) -> list[Home]:
    """The homes of tests of whole rooms, which are called as their room is: tests/runtime/test_runtime_x.py."""
    found = [path.parent.relative_to(source).as_posix() for path in sorted(source.rglob("*/__init__.py"))]
    homes = [home_of(room) for room in found]
    return [(f"{folder}/{name}".strip("/"), name) for folder, name in homes]


def files_of_tests(tests: Path) -> list[Path]:
    """The paths of the test files, below the folder of all tests, that belong to a module or a room."""
    found = [path.relative_to(tests) for path in sorted(tests.rglob("test_*.py"))]
    return [path for path in found if path.parts[0] not in FREE]


def owner(path: Path, homes: set[Home]) -> Home | None:
    """Return what a test file belongs to: of several, what has the longest name, so that a topic is not taken for it.

    In tests/drivers, test_sync_gate.py belongs to the module sync_gate, and test_sync_races.py to the module sync.
    """
    folder = "" if path.parent == Path() else path.parent.as_posix()
    words = path.stem.split("_")[1:]
    for length in range(len(words), 0, -1):
        home = folder, "_".join(words[:length])
        if home in homes:
            return home
    return None


def untested(source: Path, tests: Path, tested_with: dict[str, str] = TESTED_WITH) -> list[str]:
    """Modules without a test file."""
    wanted = modules(source)
    homes = {home_of(module) for module in wanted} | set(rooms(source))
    there = {owner(path, homes) for path in files_of_tests(tests)}
    return [f"{module}.py" for module in wanted if home_of(tested_with.get(module, module)) not in there]


def homeless(source: Path, tests: Path) -> list[str]:
    """Test files that belong to nothing."""
    homes = {home_of(module) for module in modules(source)} | set(rooms(source))
    return [path.as_posix() for path in files_of_tests(tests) if owner(path, homes) is None]


def too_long(tests: Path) -> list[str]:
    """Files with too many lines, helpers included."""
    counted = {path: len(path.read_text("utf-8").splitlines()) for path in sorted(tests.rglob("*.py"))}
    return [f"{path.relative_to(tests).as_posix()}: {lines}" for path, lines in counted.items() if lines > MOST_LINES]


def test_every_module_has_a_test_file() -> None:
    assert modules(SOURCE)
    assert untested(SOURCE, TESTS) == []


def test_every_test_file_belongs_to_a_module_or_a_room() -> None:
    assert files_of_tests(TESTS)
    assert homeless(SOURCE, TESTS) == []


def test_no_file_is_too_long() -> None:
    assert too_long(TESTS) == []


def test_every_exception_is_needed() -> None:
    assert {folder for folder in FREE if not (TESTS / folder).is_dir()} == set()
    assert {one for pair in TESTED_WITH.items() for one in pair} <= set(modules(SOURCE))
    assert untested(SOURCE, TESTS, {}) == [f"{module}.py" for module in sorted(TESTED_WITH)]


def plant(root: Path, *paths: str, lines: int = 1) -> Path:
    """Write files; returns the folder that they are in."""
    for path in paths:
        planted = root / path
        planted.parent.mkdir(parents=True, exist_ok=True)
        planted.write_text("pass\n" * lines)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A package with rooms: two private ones, one of which has a room in it, and a public one."""
    return plant(
        tmp_path / "src",
        *("__init__.py", "__main__.py", "errors.py"),
        *("_drivers/__init__.py", "_drivers/async_.py", "_drivers/sync.py", "_drivers/sync_gate.py"),
        *("_policies/__init__.py", "_policies/retry/__init__.py", "_policies/retry/settings.py"),
        *("httpx/__init__.py", "httpx/_body.py"),
    )


GOOD = [
    *("test_errors.py", "drivers/test_sync_races.py", "drivers/test_sync_gate.py", "drivers/test_async.py"),
    *("policies/retry/test_settings.py", "httpx/test_body_http2.py"),
]


def test_a_tree_that_mirrors_its_modules_is_good(tmp_path: Path, source: Path) -> None:
    whole = ["drivers/test_drivers_storm.py", "policies/retry/test_retry.py", "httpx/test_httpx_page.py"]
    tests = plant(tmp_path / "tests", *GOOD, *whole, "httpx/helpers.py", "conftest.py", "guards/test_anything.py")

    assert untested(source, tests, {}) == []
    assert homeless(source, tests) == []
    assert too_long(tests) == []


@pytest.mark.parametrize(
    ("missing", "module"),
    [
        ("test_errors.py", "errors.py"),
        ("drivers/test_async.py", "_drivers/async_.py"),
        ("drivers/test_sync_races.py", "_drivers/sync.py"),  # test_sync_gate.py is of another module
        ("policies/retry/test_settings.py", "_policies/retry/settings.py"),
        ("httpx/test_body_http2.py", "httpx/_body.py"),
    ],
)
def test_a_module_without_a_test_file_is_caught(tmp_path: Path, source: Path, missing: str, module: str) -> None:
    tests = plant(tmp_path / "tests", *(path for path in GOOD if path != missing))

    assert untested(source, tests, {}) == [module]


def test_a_test_file_elsewhere_does_not_count(tmp_path: Path, source: Path) -> None:
    moved = ["errors/test_errors.py", *GOOD[1:], "composition/test_errors.py"]
    tests = plant(tmp_path / "tests", *moved)

    assert untested(source, tests, {}) == ["errors.py"]
    assert homeless(source, tests) == ["errors/test_errors.py"]


def test_a_module_may_be_tested_with_another_that_has_a_test_file(tmp_path: Path, source: Path) -> None:
    tests = plant(tmp_path / "tests", *GOOD)
    (tests / "drivers/test_async.py").unlink()

    assert untested(source, tests, {"_drivers/async_": "_drivers/sync"}) == []
    (tests / "drivers/test_sync_races.py").unlink()
    assert untested(source, tests, {"_drivers/async_": "_drivers/sync"}) == ["_drivers/async_.py", "_drivers/sync.py"]


@pytest.mark.parametrize(
    "planted",
    [
        "test_everything.py",
        "unit/test_errors.py",
        "drivers/test_lines.py",
        "drivers/test_synchronous.py",
        "drivers/test_body.py",
        "policies/test_settings.py",
        "httpx/deeper/test_body.py",
    ],
)
def test_a_test_file_that_belongs_to_nothing_is_caught(tmp_path: Path, source: Path, planted: str) -> None:
    tests = plant(tmp_path / "tests", *GOOD, planted)

    assert homeless(source, tests) == [planted]


@pytest.mark.parametrize("planted", ["test_errors.py", "guards/test_errors.py", "httpx/helpers.py"])
def test_a_file_with_one_line_too_many_is_caught(tmp_path: Path, planted: str) -> None:
    tests = plant(tmp_path / "tests", planted, lines=MOST_LINES)
    assert too_long(tests) == []
    plant(tests, planted, lines=MOST_LINES + 1)

    assert too_long(tests) == [f"{planted}: 601"]
