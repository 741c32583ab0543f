"""The rooms: imports point downward only, policies and runtimes keep apart, and no import goes in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "resilience"

RANKS = {
    "errors": 0,
    "_util": 1,
    "_outcome": 2,
    "backoff": 2,
    "events": 3,
    "_call": 4,
    "_runtime": 5,
    "_policies": 5,
    "_drivers": 6,
    "_pipeline": 7,
}
"""A room may import from rooms of a lower rank, and from itself. Rooms of one rank do not know each other."""

DOORS = {
    "__main__": {"_demo.command", "_util.extras"},
    "_demo": {"_util.clock"},
    "asgi": {"_call.ambient", "_call.propagation", "_outcome.failure", "_util.clock", "_util.validation"},
    "grpc": {
        "_call.ambient",
        "_call.call",
        "_call.caller",
        "_call.deadline_errors",
        "_call.entry",
        "_call.propagation",
        "_call.running_call",
        "_call.settlement",
        "_call.silences",
        "_outcome.allowlist",
        "_outcome.ending",
        "_outcome.failure",
        "_outcome.unlisted",
        "_pipeline.standard",
        "_runtime",
        "_runtime.thread_timer",
        "_runtime.threads",
        "_util.clock",
        "_util.exports",
        "_util.extras",
        "_util.finalizers",
        "_util.locks",
        "_util.log_once",
        "_util.validation",
    },
    "httpx": {
        "_call.ambient",
        "_call.call",
        "_call.caller",
        "_call.deadline_errors",
        "_call.entry",
        "_call.propagation",
        "_call.retry_marks",
        "_call.running_call",
        "_call.settlement",
        "_call.silences",
        "_outcome.allowlist",
        "_outcome.ending",
        "_outcome.http_status",
        "_outcome.network_errors",
        "_outcome.problem_bodies",
        "_outcome.server_hints",
        "_outcome.status_failures",
        "_pipeline.standard",
        "_runtime",
        "_util.clock",
        "_util.exports",
        "_util.extras",
        "_util.finalizers",
        "_util.locks",
        "_util.log_once",
        "_util.redaction",
        "_util.validation",
        "_util.values",
    },
    "jobs": {
        "_call.ambient",
        "_call.budget",
        "_call.call",
        "_call.callables",
        "_call.keyed",
        "_call.retry_marks",
        "_call.running_call",
        "_outcome.failure",
        "_outcome.http_status",
        "_outcome.server_hints",
        "_pipeline.engine",
        "_runtime",
        "_runtime.threads",
        "_util.clock",
        "_util.exports",
        "_util.log_once",
        "_util.validation",
    },
    "logs": {"_util.locks", "_util.redaction", "_util.throttle", "_util.validation"},
    "opentelemetry": {
        "_call.call",
        "_call.generator_call",
        "_call.running_call",
        "_pipeline.engine",
        "_pipeline.observers",
        "_util.clock",
        "_util.exports",
        "_util.extras",
        "_util.finalizers",
        "_util.label_values",
        "_util.locks",
        "_util.log_once",
        "_util.named_counts",
        "_util.quantile",
    },
    "prometheus": {
        "_call.call",
        "_pipeline.engine",
        "_pipeline.observers",
        "_util.clock",
        "_util.exports",
        "_util.extras",
        "_util.finalizers",
        "_util.label_values",
        "_util.locks",
        "_util.log_once",
        "_util.quantile",
        "_util.redaction",
        "_util.validation",
    },
    "pytest_plugin": set[str](),
    "testing": {
        "_pipeline.engine",
        "_runtime",
        "_util.clock",
        "_util.exports",
        "_util.locks",
        "_util.log_once",
        "_util.validation",
    },
}
"""What each door takes from private rooms, besides public names."""

NEVER_FOR_DOORS = ("_policies", "_drivers")
SHARED_BY_POLICIES = {"base", "blocks", "permits", "phases", "shapes"}
RUNTIMES = {"asyncio", "trio", "threading", "anyio"}
MAY_NAME_RUNTIMES = {"_demo", "asgi", "_runtime", "testing", "_util.locks", "_util.clock", "prometheus._refresher"}
MAY_NAME_ASYNCIO = "grpc.aio"
"""The API of gRPC that runs on asyncio only."""


def modules(root: Path) -> dict[str, str]:
    """The source of each module, by its name within the package; that of a package is its __init__."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path.read_text("utf-8")
    return found


def imports(source: str, known: set[str]) -> list[str]:
    """All modules imported, also within functions; of this package, by their names within it."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                is_module = whole.removeprefix("resilience.") in known or whole == "resilience._runtime"
                found.append(whole if is_module else f"{node.module}")
    return [name for name in dict.fromkeys(found) if name]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def violations(root: Path, doors: dict[str, set[str]] = DOORS) -> list[str]:
    """Imports that the rooms forbid."""
    sources = modules(root)
    wrong: list[str] = []
    taken: dict[str, set[str]] = {door: set() for door in doors}
    for module, source in sources.items():
        if not module:
            continue
        room = module.partition(".")[0]
        for name in imports(source, set(sources)):
            first, _, target = name.partition(".")
            if first != "resilience":
                of_asyncio = first == "asyncio" and module.startswith(f"{MAY_NAME_ASYNCIO}.")
                if first in RUNTIMES and not ({room, module} & MAY_NAME_RUNTIMES or of_asyncio):
                    wrong.append(f"{module} names {name}")
            elif room in RANKS:
                wrong += [f"{module} imports {name}"] if not is_downward(module, target) else []
            elif room not in doors:
                wrong.append(f"{module} is in no room")
            elif target.startswith("_") and target.partition(".")[0] != room:
                taken[room].add(target)
    for door, wanted in taken.items():
        wrong += [f"{door} takes {name}" for name in sorted(wanted - doors[door])]
        wrong += [f"{door} takes {name}" for name in sorted(doors[door]) if name.startswith(NEVER_FOR_DOORS)]
    return wrong


def needless(root: Path, doors: dict[str, set[str]] = DOORS) -> list[str]:
    """What a door is permitted to take, and does not."""
    sources = modules(root)
    found: list[str] = []
    for door, permitted in doors.items():
        own = [source for module, source in sources.items() if module.partition(".")[0] == door]
        taken = {name.removeprefix("resilience.") for source in own for name in imports(source, set(sources))}
        found += [f"{door} does not take {name}" for name in sorted(permitted - taken)]
    return found


def is_downward(module: str, target: str) -> bool:
    room, _, rest = module.partition(".")
    other, _, inside = target.partition(".")
    if other not in RANKS:
        return False
    if room != other:
        return RANKS[other] < RANKS[room]
    if room == "_policies":
        policy, wanted = rest.partition(".")[0], inside.partition(".")[0]
        return wanted == policy or wanted in SHARED_BY_POLICIES
    return True


def circles(root: Path) -> list[str]:
    """Modules that import one another, directly or through others."""
    sources = modules(root)
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        ours = [name for name in imports(source, set(sources)) if name.startswith("resilience.")]
        names = {name.removeprefix("resilience.") for name in ours}
        graph[module] = {name for name in names & sources.keys() if not module.startswith(f"{name}.")}
    found: list[str] = []
    for module in graph:
        reached: set[str] = set()
        ahead = list(graph[module])
        while ahead:
            one = ahead.pop()
            if one not in reached:
                reached.add(one)
                ahead += graph[one]
        if module in reached:
            found.append(module)
    return found


def test_imports_point_downward() -> None:
    assert violations(SOURCE) == []


def test_doors_take_what_is_written_down() -> None:
    assert needless(SOURCE) == []


def test_no_import_goes_in_a_circle() -> None:
    assert circles(SOURCE) == []


def plant(root: Path, module: str, line: str) -> None:
    path = root / f"{module}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("_call/call", "from resilience._pipeline.pipeline import Pipeline"),
        ("_policies/shapes", "def f():\n    from resilience._drivers import sync"),
        ("_policies/shapes", "from resilience._runtime import park"),
        ("_runtime/threads", "from resilience._policies.base import Policy"),
        ("_policies/retry/retry", "from resilience._policies.timeout import Timeout"),
        ("_policies/retry/retry", "import asyncio"),
        ("_policies/retry/retry", "def f():\n    import trio"),
        ("_pipeline/engine", "if 0:\n    from resilience.testing import virtual_time"),
        ("errors", "from resilience._util import locks"),
        ("_util/clock", "import resilience.events"),
        ("_outcome/failure", "from resilience import backoff"),
        ("httpx/_body", "from resilience._policies.retry import Retry"),
        ("httpx/_body", "from resilience._pipeline.engine import engines"),
        ("shop", "from resilience import Retry"),
    ],
)
def test_a_planted_import_is_caught(tmp_path: Path, module: str, line: str) -> None:
    for name in ("backoff", "_runtime/__init__", "_drivers/sync", "_util/locks", "_util/validation"):
        plant(tmp_path, name, "")
    plant(tmp_path, module, line)

    assert len(violations(tmp_path)) == 1


def test_a_permission_that_a_door_must_not_have_is_caught(tmp_path: Path) -> None:
    plant(tmp_path, "httpx/_body", "from resilience._drivers import hooks")
    plant(tmp_path, "_drivers/hooks", "")

    assert violations(tmp_path, {"httpx": {"_drivers.hooks"}}) == ["httpx takes _drivers.hooks"]


def test_a_permission_that_is_not_used_is_caught(tmp_path: Path) -> None:
    plant(tmp_path, "logs", "")

    assert needless(tmp_path, {"logs": {"_util.clock"}}) == ["logs does not take _util.clock"]


def test_a_planted_circle_is_caught(tmp_path: Path) -> None:
    plant(tmp_path, "_util/one", "from resilience._util.two import x")
    plant(tmp_path, "_util/two", "def f():\n    from resilience._util import three")
    plant(tmp_path, "_util/three", "from resilience._util import one")
    plant(tmp_path, "_util/four", "from resilience._util import one")

    assert circles(tmp_path) == ["_util.one", "_util.three", "_util.two"]
