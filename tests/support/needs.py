"""Which test files can run where some packages are missing; `.ci/packaging` asks this in environments of the wheel.

    python -m tests.support.needs FOLDER...

prints the test files below the folders that need nothing that is missing, and on stderr how many do, and what. A file
needs what it imports, anywhere in it, and what the modules and conftests of this repository need that it imports.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEEDED_BY = {
    "resilience.grpc": "grpc",
    "resilience.opentelemetry": "opentelemetry",
    "resilience.prometheus": "prometheus_client",
}
"""What the modules of the library need. That of httpx needs one of two, which its tests import by themselves."""


OURS = ("resilience", "tests", "docs", "benchmarks")


def main(folders: Sequence[str]) -> None:
    """Print the files that can run."""
    missing: Counter[str] = Counter()
    left_out = 0
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("test_*.py")):
            lacking = [package for package in sorted(needs(path)) if is_missing(package)]
            missing.update({name.partition(".")[0] for name in lacking})
            if lacking:
                left_out += 1
            else:
                print(path.relative_to(ROOT).as_posix())
    packages = ", ".join(f"{package} ({files})" for package, files in missing.most_common())
    print(f"left out: {left_out}, which need {packages or 'nothing'}", file=sys.stderr)


def needs(path: Path) -> set[str]:
    """Return the modules of other packages that a test file needs."""
    conftests = [folder / "conftest.py" for folder in path.parents if folder.is_relative_to(ROOT)]
    pending = [path, *(one for one in conftests if one.is_file())]
    seen = set(pending)
    found: set[str] = set()
    while pending:
        for name in imported(pending.pop()):
            first = name.partition(".")[0]
            if first in OURS[1:]:
                own = [one for one in files_of(name) if one not in seen]
                pending += own
                seen.update(own)
            elif first == "resilience":
                found |= {package for module, package in NEEDED_BY.items() if f"{name}.".startswith(f"{module}.")}
            elif first not in sys.stdlib_module_names:
                found.add(name)
    return found


def files_of(name: str) -> list[Path]:
    """Return the files of a module of this repository, those of its packages included."""
    parts = name.split(".")
    paths = [ROOT.joinpath(*parts[:length]) for length in range(1, len(parts) + 1)]
    return [one for path in paths for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()]


@functools.cache
def imported(path: Path) -> list[str]:
    """Return the names of all modules that a file imports; those of this repository as `module.name`."""
    return list(_imported(ast.parse(path.read_text("utf-8"))))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                ours = module.partition(".")[0] in OURS  # where a name may be that of a module
                yield from (f"{module}.{alias.name}" for alias in names) if ours else [module]
            case ast.Attribute(value=ast.Name(id="resilience"), attr=attribute):
                yield f"resilience.{attribute}"
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
                args=[ast.Constant(str(name)), *_],
            ):
                yield name
            case _:
                pass


@functools.cache
def is_missing(module: str) -> bool:
    """Return whether a module of another package is not installed."""
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        return True


if __name__ == "__main__":
    main(sys.argv[1:])
