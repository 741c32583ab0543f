"""The pages of the API reference: one for each public module, with its names as `__all__` has them.

Nothing is listed here: what is public is read off the package, and sorted by what it is.
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import resilience

SOURCE = Path(resilience.__file__).parent
WITHOUT_NAMES = {"resilience.pytest_plugin"}
"""Public modules that no one imports names from: pytest finds the fixtures by themselves."""
OPTIONAL = {"resilience.httpx", "resilience.grpc", "resilience.prometheus", "resilience.opentelemetry"}


def public_modules(source: Path = SOURCE) -> list[str]:
    """The names of the modules whose path has no underscore."""
    found: list[str] = []
    for path in sorted(source.rglob("*.py")):
        parts = [part for part in path.relative_to(source).with_suffix("").parts if part != "__init__"]
        if not any(part.startswith("_") for part in parts):
            found.append(".".join([resilience.__name__, *parts]))
    return [name for name in found if name not in WITHOUT_NAMES]


@cache
def public_names() -> dict[str, Any]:
    """Each public name with its module in front, such as `resilience.events.Rejected`, and what it is."""
    found: dict[str, Any] = {}
    for module in map(importlib.import_module, public_modules()):
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}
    return {name: value for name, value in found.items() if not isinstance(value, ModuleType)}


def documented_names() -> list[str]:
    """The public names without those that a module shows although `resilience` itself does, too."""
    return [name for name, value in public_names().items() if name.count(".") == 1 or not _is_shown_above(name, value)]


def _is_shown_above(name: str, value: object) -> bool:
    return getattr(resilience, name.rpartition(".")[2], None) is value


def group_of(value: object) -> str:
    """The heading under which a name stands."""
    if not isinstance(value, type):
        return "Functions" if callable(value) and hasattr(value, "__name__") else "Constants"
    if issubclass(value, BaseException):
        return "Exceptions and warnings"
    if issubclass(value, enum.Enum):
        return "Enumerations"
    return "Policies" if issubclass(value, resilience.Policy) else "Classes"


GROUPS = ("Policies", "Classes", "Functions", "Exceptions and warnings", "Enumerations", "Constants")
DIRECTIVES = {"Functions": "autofunction", "Constants": "autodata", "Exceptions and warnings": "autoexception"}


def public_bases(value: Any) -> list[str]:
    """Links to the public classes that a class is derived from."""
    names = {id(value): name for name, value in public_names().items()}
    return [f":py:obj:`{names[id(base)]}`" for base in value.__mro__[1:] if id(base) in names]


def page(module: str) -> str:
    """The page of a module, in reStructuredText, which autodoc fills."""
    return "\n".join(_lines(importlib.import_module(module)))


def _lines(module: ModuleType) -> Iterator[str]:
    title = f"``{module.__name__}``"
    yield from (title, "=" * len(title), "", f".. automodule:: {module.__name__}", "   :no-members:", "")
    values = {name: getattr(module, name) for name in module.__all__}
    names = {name: value for name, value in values.items() if f"{module.__name__}.{name}" in documented_names()}
    above = [name for name, value in values.items() if name not in names and not isinstance(value, ModuleType)]
    if above:
        yield from ("These names are here, too:", "", *(f"* :py:obj:`resilience.{name}`" for name in above), "")
    for group in GROUPS:
        chosen = [name for name, value in names.items() if group_of(value) == group]
        if not chosen:
            continue
        yield from (group, "-" * len(group), "")
        for name in chosen:
            yield f".. {DIRECTIVES.get(group, 'autoclass')}:: {module.__name__}.{name}"
            yield from ("   :members:", "") if group not in ("Functions", "Constants") else ("",)
            bases = public_bases(names[name]) if group == "Policies" else []
            yield from (f"   It has the members of {', '.join(bases)}, too.", "") if bases else ()


def write(folder: Path) -> None:
    """Write the pages into a folder, and remove those of modules that are gone."""
    folder.mkdir(exist_ok=True)
    wanted = {folder / f"{module}.rst": page(module) for module in public_modules()}
    entries = "\n".join(f"   {path.stem}" for path in wanted)
    wanted[folder / "index.rst"] = (
        f"API reference\n=============\n\nEverything public, from its docstrings.\n\n.. toctree::\n\n{entries}\n"
    )
    for path in set(folder.glob("*.rst")) - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
