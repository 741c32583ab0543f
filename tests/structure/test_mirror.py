"""The drivers for plain functions and those for coroutines are mirror images."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

DRIVERS = Path(__file__).parents[2] / "src" / "resilience" / "_drivers"
PAIRS = {
    "sync": "async_",
    "sync_gate": "async_gate",
    "sync_keyed": "async_keyed",
    "sync_substitute": "async_substitute",
}
DIFFER = {"await_delay", "await_replacement", "invoke", "invoke_attempt"}
"""What a hook or function returns is awaited in one, and an error in the other; only tasks are cancelled."""


class Unawaited(ast.NodeTransformer):
    """Takes the awaits out."""

    def visit_Await(self, node: ast.Await) -> ast.AST:
        value: ast.AST = self.visit(node.value)
        return value

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        plain = ast.FunctionDef(**{name: getattr(node, name) for name in node._fields})
        return ast.copy_location(plain, node)


def functions(source: str) -> dict[str, str]:
    tree = Unawaited().visit(ast.parse(source))
    return {node.name: ast.unparse(node) for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("plain", PAIRS)
def test_the_drivers_are_mirror_images(plain: str) -> None:
    sync = functions((DRIVERS / f"{plain}.py").read_text())
    mirrored = functions((DRIVERS / f"{PAIRS[plain]}.py").read_text())

    assert sync
    assert sync.keys() == mirrored.keys()
    assert {name for name in sync if sync[name] != mirrored[name]} <= DIFFER


def test_every_exception_is_needed() -> None:
    differ: set[str] = set()
    for plain, other in PAIRS.items():
        sync = functions((DRIVERS / f"{plain}.py").read_text())
        mirrored = functions((DRIVERS / f"{other}.py").read_text())
        differ |= {name for name in sync if sync[name] != mirrored[name]}

    assert differ == DIFFER


def test_a_planted_difference_is_caught() -> None:
    source = (DRIVERS / "async_gate.py").read_text()
    planted = source.replace("settle(token, call.good)", "pass", 1)

    assert planted != source
    assert functions(planted) != functions(source)
