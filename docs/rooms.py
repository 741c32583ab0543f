"""The rooms of the package, read off its files: how large each is, and which others it imports.

    python3 dev.py map               a table of the rooms
    python3 dev.py map --modules     the modules of each room, too
    python3 dev.py map --mermaid     the picture of docs/design.md

It needs nothing but the standard library, and runs none of the code that it reads.
"""

from __future__ import annotations

import argparse
import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGE = "resilience"
SOURCE = Path(__file__).resolve().parents[1] / "src" / PACKAGE
DOOR = "resilience"
"""What the package itself is called as a room: its `__init__`, which imports all public names."""

Graph = dict[str, set[str]]


def modules(source: Path) -> dict[str, Path]:
    """The files of the package by the names of their modules within it; that of the package itself is empty."""
    found: dict[str, Path] = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def room_of(module: str) -> str:
    """The room of a module: the folder, or the module, right below the package."""
    return module.partition(".")[0] or DOOR


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """Yield the modules of the package that a file imports, anywhere in it, by their names within the package."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, _, rest = name.partition(".")
            if first == PACKAGE:
                yield rest if rest in known else rest.rpartition(".")[0]


def imports(source: Path) -> Graph:
    """Which rooms each room imports, itself not included."""
    there = modules(source)
    graph: Graph = {room_of(module): set() for module in there}
    for module, path in there.items():
        room = room_of(module)
        graph[room] |= {room_of(name) for name in imported(path, set(there))} - {room}
    return graph


def layers(graph: Graph) -> list[list[str]]:
    """The rooms from the ground upward: each layer imports lower ones only.

    Raises:
        ValueError: rooms import one another in a circle.
    """
    left = dict(graph)
    found: list[list[str]] = []
    while left:
        layer = sorted(room for room, below in left.items() if not below & left.keys())
        if not layer:
            raise ValueError(f"these rooms import one another in a circle: {', '.join(sorted(left))}")
        found.append(layer)
        left = {room: below for room, below in left.items() if room not in layer}
    return found


def reduced(graph: Graph) -> Graph:
    """The imports without those that follow from others."""

    def reached(room: str) -> set[str]:
        return set().union(*({below} | reached(below) for below in graph[room]))

    return {
        room: {one for one in below if not any(one in reached(other) for other in below)}
        for room, below in graph.items()
    }


def table(source: Path, *, every_module: bool = False) -> str:
    """The rooms from the top downward: files, lines, and the rooms that each imports."""
    there = modules(source)
    graph = imports(source)
    files: dict[str, list[str]] = defaultdict(list)
    for module in there:
        files[room_of(module)].append(module)
    lengths = {module: len(path.read_text("utf-8").splitlines()) for module, path in there.items()}
    lines = [f"{'room':<14}{'files':>6}{'lines':>7}  imports"]
    for layer in reversed(layers(graph)):
        for room in layer:
            total = sum(lengths[module] for module in files[room])
            below = ", ".join(sorted(graph[room])) or "nothing"
            lines.append(f"{room:<14}{len(files[room]):>6}{total:>7}  {below}")
            if every_module:
                lines += [f"  {lengths[module]:>5}  {module or '__init__'}" for module in files[room]]
    lines.append(f"{'total':<14}{len(there):>6}{sum(lengths.values()):>7}")
    return "\n".join(lines)


def mermaid(source: Path) -> str:
    """The picture: an arrow from each room to those that it imports, without arrows that follow from others."""
    graph = reduced(imports(source))
    lines = ["flowchart TD"]
    for layer in reversed(layers(graph)):
        for room in layer:
            shape = f"[{room}]" if room.startswith("_") else f"([{room}])"
            lines.append(f"    {_node(room)}{shape}")
    for room in sorted(graph):
        lines += [f"    {_node(room)} --> {_node(below)}" for below in sorted(graph[room])]
    return "\n".join(lines)


def _node(room: str) -> str:
    """The name of a node; some names of rooms are words of Mermaid's own."""
    return f"room_{room.strip('_')}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(prog="dev.py map", description="the rooms of the package")
    parser.add_argument("--modules", action="store_true", help="the modules of each room, too")
    parser.add_argument("--mermaid", action="store_true", help="the picture of docs/design.md")
    options = parser.parse_args(arguments)
    print(mermaid(SOURCE) if options.mermaid else table(SOURCE, every_module=options.modules))


if __name__ == "__main__":
    main()
