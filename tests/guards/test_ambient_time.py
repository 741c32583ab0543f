"""Time and chance come through resilience._util.clock, so that tests and simulations can replace them."""

from pathlib import Path

import pytest

from tests.guards.tree import SOURCE, Use, python_files, read, uses

AMBIENT = {
    "anyio.sleep",
    "anyio.sleep_until",
    "asyncio.sleep",
    "asyncio.tasks.sleep",
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "random",
    "secrets",
    "threading.Condition",
    "threading.Event",
    "threading.Timer",
    "time",
    "trio.sleep",
    "trio.sleep_until",
}

# What a module may use all the same, and nothing else. Every entry has to be needed.
ALLOWED: dict[str, set[str]] = {
    "_demo/load.py": {"asyncio.sleep", "random.Random"},
    "_demo/run.py": {"asyncio.sleep"},
    "_demo/services.py": {"asyncio.sleep"},
    "_demo/workers.py": {"random.Random"},
    "_runtime/thread_timer.py": {"threading.Event"},
    "prometheus/_refresher.py": {"threading.Event"},
    "testing/_ports.py": {"threading.Event"},
    "testing/_rpcs.py": {"threading.Condition"},
    "_util/clock.py": {"random.Random", "time.monotonic"},
    "testing/_virtual_time.py": {"random.Random"},
}


def is_within(name: str, names: set[str]) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in names)


def is_ambient(use: Use) -> bool:
    if use.name.endswith(".*"):
        return any(name.startswith(use.name[:-1]) for name in AMBIENT)
    return is_within(use.name, AMBIENT)


def is_allowed(use: Use, allowed: set[str]) -> bool:
    # `import random` is needed to say random.Random, and every use of it is looked at by itself.
    return is_within(use.name, allowed) or (use.imported and any(name.startswith(f"{use.name}.") for name in allowed))


def complaints(root: Path, table: dict[str, set[str]]) -> list[str]:
    return [
        f"{module}:{use.line}: {use.name}"
        for path in python_files(root)
        for module in [path.relative_to(root).as_posix()]
        for use in uses(read(path))
        if is_ambient(use) and not is_allowed(use, table.get(module, set()))
    ]


def needless(root: Path, table: dict[str, set[str]]) -> list[str]:
    return [
        f"{module}: {name}"
        for module, names in table.items()
        for path in [root / module]
        for used in [[use.name for use in uses(read(path))] if path.is_file() else []]
        for name in sorted(names)
        if not any(is_within(other, {name}) for other in used)
    ]


def test_only_the_clock_and_the_runtimes_know_time_and_chance() -> None:
    assert complaints(SOURCE, ALLOWED) == []


def test_every_exception_to_the_rule_is_needed() -> None:
    assert needless(SOURCE, ALLOWED) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time", ["1: time"]),
        ("import time as t\nt.sleep(1)", ["1: time", "2: time.sleep"]),
        ("import random", ["1: random"]),
        ("def f():\n    from time import monotonic", ["2: time.monotonic"]),
        ("def f():\n    import random as r\n    return r.random()", ["2: random", "3: random.random"]),
        ("from random import Random", ["1: random.Random"]),
        ("__import__('time')", ["1: time"]),
        ("import importlib\nimportlib.import_module('random')", ["2: random"]),
        ("import asyncio\nasync def f(): await asyncio.sleep(1)", ["2: asyncio.sleep"]),
        ("import asyncio\nnap = asyncio.sleep", ["2: asyncio.sleep"]),
        ("from asyncio import sleep", ["1: asyncio.sleep"]),
        ("from asyncio import *", ["1: asyncio.*"]),
        ("from trio import sleep_until as nap", ["1: trio.sleep_until"]),
        ("import anyio as a\nasync def f(): await a.sleep(1)", ["2: anyio.sleep"]),
        ("import threading\nthreading.Event().wait(1)", ["2: threading.Event"]),
        ("from datetime import datetime\nx = datetime.now()", ["2: datetime.datetime.now"]),
        ("from datetime import date as d\nx = d.today()", ["2: datetime.date.today"]),
    ],
)
def test_a_planted_use_is_found(tmp_path: Path, source: str, found: list[str]) -> None:
    (tmp_path / "planted.py").write_text(source)

    assert complaints(tmp_path, {"clock.py": {"time", "random"}}) == [f"planted.py:{use}" for use in found]


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio, trio, threading\nthreading.Lock()\nasyncio.current_task()",
        "from .clock import time\ntime.sleep(1)",
        "from datetime import datetime, timedelta\ndatetime.fromtimestamp(0)",
        "def f(time, random): return time.sleep(random)",
        "import timeit, randomness",
    ],
)
def test_other_names_are_not_ambient(tmp_path: Path, source: str) -> None:
    (tmp_path / "innocent.py").write_text(source)

    assert complaints(tmp_path, ALLOWED) == []


def test_an_exception_is_for_one_module_and_one_name(tmp_path: Path) -> None:
    for name in ("testing.py", "other.py"):
        (tmp_path / name).write_text("import random\nrandom.Random(7).random()\nrandom.random()\nx = random\n")

    assert complaints(tmp_path, {"testing.py": {"random.Random"}}) == [
        *["other.py:1: random", "other.py:2: random.Random", "other.py:3: random.random", "other.py:4: random"],
        *["testing.py:3: random.random", "testing.py:4: random"],
    ]


def test_a_needless_exception_is_found(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text("import time\ntime.monotonic()\n")

    assert needless(tmp_path, {"clock.py": {"time.monotonic", "time.sleep"}, "gone.py": {"random"}}) == [
        "clock.py: time.sleep",
        "gone.py: random",
    ]
