"""A path without an underscore is public, and documented; every other is private, and no page for users names it."""

from __future__ import annotations

import ast
import enum
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from resilience.opentelemetry._span_events import ATTRIBUTES, EVENTS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "resilience"
FOR_CONTRIBUTORS = {"design.md"}
"""Pages about the inside, which name private paths."""
PAGES = [
    ROOT / "README.md",
    *[page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name not in FOR_CONTRIBUTORS],
]
EXAMPLES = sorted((ROOT / "docs" / "examples").rglob("*.py"))
OF_SPANS = {"resilience.pipeline", "resilience.operation", "resilience.outcome", *EVENTS.values(), *ATTRIBUTES.values()}
"""The names of events and attributes of spans, which are no names of Python."""
NO_NAMES = {"pytest_plugin"}
"""Public modules that no one imports names from: pytest finds the fixtures by itself."""


def public_modules(source: Path) -> list[str]:
    """The modules whose path has no underscore, by their names within the package."""
    found: list[str] = []
    for path in sorted(source.rglob("*.py")):
        parts = [part for part in path.relative_to(source).with_suffix("").parts if part != "__init__"]
        if not any(part.startswith("_") for part in parts):
            found.append(".".join(parts))
    return found


def lacking(module: ModuleType, package: str, sources: list[str]) -> list[str]:
    """What a public module lacks: docstrings, and names in its `__all__`."""
    wrong = [] if module.__doc__ else [f"{module.__name__} has no docstring"]
    names: list[str] | None = getattr(module, "__all__", None)
    if names is None:
        return [*wrong, f"{module.__name__} has no __all__"]
    wrong += [f"{module.__name__}.{name} is not in __all__" for name in sorted(defined(module) - set(names))]
    for name in names:
        value = getattr(module, name)
        if isinstance(value, type | FunctionType):
            found = undocumented(name, value, package, sources)
            wrong += [f"{module.__name__}.{where} has no docstring" for where in found]
        elif not isinstance(value, ModuleType) and not has_constant(name, sources):
            wrong.append(f"{module.__name__}.{name} has no docstring")
    return wrong


def defined(module: ModuleType) -> set[str]:
    """The classes, functions and constants that a module defines, but for those with an underscore."""
    found: set[str] = set()
    for node in ast.parse(Path(str(module.__file__)).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def undocumented(name: str, value: type | FunctionType, package: str, sources: list[str]) -> Iterator[str]:
    """Yield a class or function without a docstring, and public members of a class without one."""
    if not (value.__doc__ or "").strip():
        yield name
    if not isinstance(value, type):
        return
    for kind in value.__mro__:
        if kind.__module__.partition(".")[0] != package:
            continue
        for attribute, member in vars(kind).items():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if not attribute.startswith("_") and inspect.isfunction(function) and not inspect.getdoc(function):
                yield f"{name}.{attribute}"
    if issubclass(value, enum.Enum):
        yield from (f"{name}.{member}" for member in members_without_a_line(value, sources))


def members_without_a_line(kind: type[enum.Enum], sources: list[str]) -> list[str]:
    """The members of an enumeration that are not followed by a string."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    (body,) = [node.body for node in nodes if node.name == kind.__name__]
    found: list[str] = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and not is_string(after):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return found


def has_constant(name: str, sources: list[str]) -> bool:
    """Return whether a constant is followed by a string where it is assigned."""
    for source in sources:
        body = ast.parse(source).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name) and target.id == name and is_string(after):
                return True
    return False


def is_string(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def private_names(text: str) -> list[str]:
    """Dotted names in a page, or imports in a program, that are private or do not exist."""
    found: list[str] = []
    for module, imported in re.findall(r"from (resilience(?:\.\w+)*) import (\([^)]*\)|[^\n]+)", text):
        names = [one.split(" as ")[0].strip() for one in imported.strip("()").split(",")]
        found += [f"{module}.{name}" for name in names if name]
    found += re.findall(r"(?<![\w./-])(resilience(?:\.\w+)+)", text)
    return sorted({name for name in found if not (name in OF_SPANS or is_public(name))})


def is_public(name: str) -> bool:
    """Return whether a dotted name is one that users may use."""
    parts = name.split(".")[1:]
    if any(part.startswith("_") for part in parts):
        return False
    value: object = importlib.import_module("resilience")
    path = "resilience"
    for part in parts:
        path = f"{path}.{part}"
        names = getattr(value, "__all__", None) if isinstance(value, ModuleType) else None
        if names is not None and part not in names and importlib.util.find_spec(path) is None:
            return False
        try:
            value = getattr(value, part) if hasattr(value, part) else importlib.import_module(path)
        except ImportError:
            return False
    return True


@pytest.mark.parametrize("name", public_modules(SOURCE))
def test_a_public_module_is_documented_and_lists_its_names(name: str) -> None:
    module = importlib.import_module(f"resilience.{name}" if name else "resilience")
    sources = [path.read_text("utf-8") for path in sorted(SOURCE.rglob("*.py"))]
    wrong = lacking(module, "resilience", sources)

    assert [one for one in wrong if not (name in NO_NAMES and one.endswith("no __all__"))] == []


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_names_public_things_only(page: Path) -> None:
    assert private_names(page.read_text("utf-8")) == []


def load(tmp_path: Path, source: str) -> ModuleType:
    path = tmp_path / "planted.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("planted", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted"] = module
    spec.loader.exec_module(module)
    return module


PLANTED = '''
"""A module."""
import enum
__all__ = ["CONSTANT", "LISTED", "Kind", "Shown", "work"]
CONSTANT = 1
"""One."""
LISTED = 2


class Shown:
    """A class."""

    def said(self):
        """Return."""

    def silent(self): ...

    @property
    def quiet(self): ...

    @classmethod
    def make(cls): ...

    def _private(self): ...


class Kind(enum.Enum):
    """A kind."""

    ONE = 1
    """The first."""
    TWO = 2


def work(): ...


def forgotten():
    """Return."""


def _private(): ...
'''


def test_what_a_public_module_lacks_is_found(tmp_path: Path) -> None:
    try:
        module = load(tmp_path, PLANTED)
        assert lacking(module, "planted", [PLANTED]) == [
            "planted.forgotten is not in __all__",
            "planted.LISTED has no docstring",
            "planted.Kind.TWO has no docstring",
            "planted.Shown.silent has no docstring",
            "planted.Shown.quiet has no docstring",
            "planted.Shown.make has no docstring",
            "planted.work has no docstring",
        ]
    finally:
        sys.modules.pop("planted", None)


def test_a_public_module_without_names_is_found(tmp_path: Path) -> None:
    try:
        assert lacking(load(tmp_path, "x = 1"), "planted", []) == [
            "planted has no docstring",
            "planted has no __all__",
        ]
    finally:
        sys.modules.pop("planted", None)


def test_public_paths_have_no_underscore(tmp_path: Path) -> None:
    for name in ("__init__.py", "one.py", "_two.py", "_room/three.py", "door/__init__.py", "door/_four.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")

    assert public_modules(tmp_path) == ["", "door", "one"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from resilience import Retry, _call", ["resilience._call"]),
        ("from resilience._call.call import Call", ["resilience._call.call", "resilience._call.call.Call"]),
        ("`resilience.nothing`", ["resilience.nothing"]),
        ("from resilience.events import (\n    Nothing,\n    Rejected,\n)", ["resilience.events.Nothing"]),
        ("resilience.httpx._transport.attach", ["resilience.httpx._transport.attach"]),
        ("`resilience.httpx.attach(client)`, resilience.grpc.aio.insecure_channel; resilience-client", []),
        ("from resilience import Retry\nimport resilience.grpc", []),
        ("see `resilience.events.RetryScheduled`.", []),
    ],
)
def test_private_names_in_a_page_are_found(text: str, found: list[str]) -> None:
    assert private_names(text) == found
