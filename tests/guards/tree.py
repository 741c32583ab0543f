"""What the guards read: files, and the names that a module uses."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import which

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "resilience"

_DYNAMIC_IMPORTS = ("importlib.import_module", "__import__")


def python_files(root: Path) -> list[Path]:
    """All modules under root; a guard that would read nothing fails."""
    found = sorted(root.rglob("*.py"))
    assert found, f"no Python file under {root}"
    return found


def repository_files(root: Path) -> list[Path]:
    """The files that are, or could be, committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False) if which("git") else None
    if listed is None or listed.returncode != 0:  # an unpacked archive
        return sorted(path for path in root.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(root)))
    return sorted(path for name in listed.stdout.split("\0") if name and (path := root / name).is_file())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") and part != ".ci" for part in path.parts[:-1])


def read(path: Path) -> str:
    """The text of a file; empty if it is binary."""
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", errors="replace")


@dataclass(frozen=True)
class Use:
    """A name, as it would be written without any alias, and where it is used."""

    line: int
    name: str
    imported: bool


def uses(source: str) -> Iterator[Use]:
    """Yield what a module imports, anywhere in it, and every use of what it has imported.

    Names are resolved through imports only: a variable that is assigned `time` is found where `time` is mentioned.
    """
    tree = ast.parse(source)
    aliases: dict[str, str] = {"__import__": "__import__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package = alias.name.partition(".")[0]  # all that `import package.module` binds
                aliases[alias.asname or package] = alias.name if alias.asname else package
                yield Use(node.lineno, alias.name, imported=True)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                name = f"{module}.{alias.name}"
                aliases[alias.asname or alias.name] = name
                yield Use(node.lineno, name, imported=True)
    yield from _uses_below(tree, aliases)


def _uses_below(node: ast.AST, aliases: dict[str, str]) -> Iterator[Use]:
    if isinstance(node, ast.Attribute | ast.Name):
        name = _dotted(node, aliases)
        if name is not None:
            yield Use(node.lineno, name, imported=False)
            return
    if isinstance(node, ast.Call) and _dotted(node.func, aliases) in _DYNAMIC_IMPORTS:
        match node.args:
            case [ast.Constant(value=str(name)), *_]:
                yield Use(node.lineno, name, imported=True)
    for child in ast.iter_child_nodes(node):
        yield from _uses_below(child, aliases)


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return aliases.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, aliases)
        return None if owner is None else f"{owner}.{node.attr}"
    return None
