"""Imports point downward only, and the two families of drivers are mirror images."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "resilience"

LAYERS = [
    ["errors", "checks", "locks", "clock", "complaints"],
    ["strategies", "failure"],
    ["allowlist", "budget", "backoff", "windows"],
    ["ending", "network"],
    ["settling", "events"],
    ["bus"],
    ["call"],
    ["misuse", "timing", "tickets", "given_up"],
    ["calling"],
    ["policy"],
    ["shapes"],
    ["by_hand", "circuit", "retrying"],
    ["policies"],
    ["runtime"],
    ["consult", "deadlines", "meter", "census"],
    ["drive_sync", "drive_async", "drive_thread", "shadow"],
    ["doorway", "contradictions", "pair_sync", "pair_async"],
    ["composing"],
    ["engine"],
    ["pipeline"],
    ["recorder"],
    ["logs", "testing", "testing_trio", "pytest_plugin", "httpx", "grpc"],
    ["__init__"],
]
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
SAME_LAYER = {"checks", "errors", "locks", "given_up", "testing", "testing_trio"}
RUNTIMES = {"asyncio", "trio", "threading", "anyio"}
MAY_NAME_RUNTIMES = {"runtime", "testing", "testing_trio", "locks", "clock", "grpc"}


def imports(source: str) -> list[str]:
    """All modules imported, also within functions and under TYPE_CHECKING."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module in ("resilience", "resilience.runtime"):
                found += [f"{node.module}.{name.name}" for name in node.names]
            elif node.module:
                found.append(node.module)
    return found


def violations(root: Path) -> list[str]:
    wrong: list[str] = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        module = parts[0]
        for name in imports(path.read_text()):
            first, *rest = name.split(".")
            if first == "resilience" and rest:
                target = rest[0]
                own_package = target == module and module in ("runtime", "httpx", "grpc")
                if RANK[target] > RANK[module] or (
                    RANK[target] == RANK[module] and not own_package and target not in SAME_LAYER
                ):
                    wrong.append(f"{'/'.join(parts)} imports {name}")
            elif first in RUNTIMES and module not in MAY_NAME_RUNTIMES:
                wrong.append(f"{'/'.join(parts)} names {name}")
    return wrong


def test_imports_point_downward() -> None:
    assert violations(SOURCE) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("call", "from resilience.pipeline import Pipeline"),
        ("shapes", "def f():\n    from resilience import drive_sync"),
        ("policies/retry", "from resilience.policies.timeout import Timeout"),
        ("policies/retry", "import asyncio"),
        ("policies/retry", "def f():\n    import trio"),
        ("engine", "if 0:\n    from resilience.testing import virtual_time"),
    ],
)
def test_a_planted_import_is_caught(tmp_path: Path, module: str, line: str) -> None:
    path = tmp_path / f"{module}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(line)

    assert len(violations(tmp_path)) == 1


class Unawaited(ast.NodeTransformer):
    """Takes the awaits out."""

    def visit_Await(self, node: ast.Await) -> ast.AST:
        value: ast.AST = self.visit(node.value)
        return value

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        plain = ast.FunctionDef(**{name: getattr(node, name) for name in node._fields})
        return ast.copy_location(plain, node)


DIFFER = {"invoke", "ponder", "stand_in"}  # what a hook or function returns is awaited in one, refused in the other


def functions(source: str) -> dict[str, str]:
    tree = Unawaited().visit(ast.parse(source))
    return {node.name: ast.unparse(node) for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_drivers_are_mirror_images() -> None:
    sync = functions((SOURCE / "drive_sync.py").read_text())
    mirrored = functions((SOURCE / "drive_async.py").read_text())

    assert {"gate", "loop", "substitute", "within"} <= sync.keys() == mirrored.keys()
    assert {name for name in sync if sync[name] != mirrored[name]} == DIFFER


def test_the_drivers_of_pairs_are_mirror_images() -> None:
    sync = functions((SOURCE / "pair_sync.py").read_text())
    mirrored = functions((SOURCE / "pair_async.py").read_text())

    assert mirrored == sync
    assert "pair" in mirrored


def test_a_planted_difference_is_caught() -> None:
    source = (SOURCE / "drive_async.py").read_text()
    planted = source.replace("settle(token, OK)", "pass", 1)

    assert planted != source
    assert functions(planted) != functions(source)
