"""A function reads the settings of a policy once: `update` may replace them between two reads."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.guards.tree import SOURCE, python_files

ROOMS = ("_policies", "_drivers", "_pipeline")
FIXED = {
    "state.settings",  # a RetryState keeps the settings with which its call began
    "source.seconds",  # a DeadlineSource is made anew for each chain
}
FROZEN = "Settings"  # the settings themselves do not change

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[tuple[str, Function]]:
    """Yield the functions of a module with the name of their class; empty for those outside of classes."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield node.name if isinstance(node, ast.ClassDef) else "", child


def names_of_settings(sources: list[str]) -> set[str]:
    """Return `settings`, and the names of the properties that read it."""
    return {"settings"} | {
        function.name
        for source in sources
        for _, function in functions(ast.parse(source))
        if any(isinstance(one, ast.Name) and one.id == "property" for one in function.decorator_list)
        and any("self.settings" in ast.unparse(statement) for statement in function.body)
    }


def read_twice(source: str, names: set[str]) -> Iterator[str]:
    """Yield each function that reads the settings of one object more than once, with what it reads."""
    for owner, function in functions(ast.parse(source)):
        if FROZEN in owner:
            continue
        reads = Counter(
            ast.unparse(node)
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in names
        )
        for read, times in reads.items():
            if times > 1 and read not in FIXED and "settings." not in read:
                yield f"{function.name} reads {read} {times} times"


def found(files: list[Path]) -> list[str]:
    sources = [path.read_text("utf-8") for path in files]
    names = names_of_settings(sources)
    return [
        f"{path.name}: {fault}"
        for path, source in zip(files, sources, strict=True)
        for fault in read_twice(source, names)
    ]


def test_settings_are_read_once() -> None:
    assert found([path for room in ROOMS for path in python_files(SOURCE / room)]) == []


def test_a_second_read_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(
        "class Limit:\n"
        "    @property\n"
        "    def first(self):\n"
        "        return self.settings.first\n"
        "    def admit(self, call):\n"
        "        return self.settings.a + self.settings.b\n"
        "    def once(self):\n"
        "        settings = self.settings\n"
        "        return settings.a + settings.b\n"
        "def applies(policy):\n"
        "    return policy.first is not None and policy.first > 1\n",
        "utf-8",
    )

    assert sorted(found([planted])) == [
        "planted.py: admit reads self.settings 2 times",
        "planted.py: applies reads policy.first 2 times",
    ]
