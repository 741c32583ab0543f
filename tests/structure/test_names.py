"""What pages and messages name exists: classes by their names, and parts of the library by the usual words for them."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from tests.structure.test_public import PAGES, ROOT, SOURCE, public_modules

OF_OTHERS = (builtins, httpx, grpc)
MADE_UP = {"Idempotency", "Mine", "NotSent"}
"""Examples, and a header."""
OF_OTHERS_IN = {
    "docs/migrating.md": ("pybreaker", "stamina"),
    "docs/recipes/aiohttp.md": ("aiohttp",),
    "docs/recipes/boto3.md": ("botocore.config", "botocore.exceptions"),
    "docs/recipes/celery.md": ("celery.exceptions",),
    "docs/recipes/django.md": ("django.apps", "django.db"),
    "docs/recipes/fastapi.md": ("fastapi",),
    "docs/recipes/redis.md": ("redis", "redis.backoff", "redis.exceptions"),
    "docs/recipes/shutdown.md": ("queue",),
    "docs/recipes/sqlalchemy.md": ("sqlalchemy.orm",),
}
"""Modules whose classes a page names, too."""
OF_OTHER_LANGUAGES = {"docs/vocabulary.md"}
"""Pages that name classes of Java and C#."""
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
CLASS = re.compile(r"""(?<![\w.\-/"])[A-Z]\w*[a-z]\w*""")
PARTS = {
    r"(?i)\bmetrics?\b|\bPrometheus": "prometheus",
    r"\bOpenTelemetry\b": "opentelemetry",
    r"(?i)\bhedg": "Hedge",
    r"\bFallbacks?\b": "Fallback",
    r"\bStaleCache\b": "StaleCache",
    r"(?<!X-)\bRateLimit\b(?!-| family)": "RateLimit",
    r"\bAdaptiveLimit\b": "AdaptiveLimit",
    r"\bCooldown\b": "Cooldown",
    r"\bPartition\b": "Partition",
    r"\bChaos\b": "Chaos",
    r"\bstandard\(": "standard",
    r"\bstatus_failures\b": "status_failures",
    r"\bFaultyServer\b": "testing.FaultyServer",
}
"""Words for parts of the library, and where the part is once there is one."""
MORE_PAGES = [ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "design.md"]


def exists(name: str) -> bool:
    """Return whether `resilience` has a name or a module."""
    whole = f"resilience.{name}"
    owner, _, attribute = whole.rpartition(".")
    if importlib.util.find_spec(owner) is None:
        return False
    return hasattr(importlib.import_module(owner), attribute) or importlib.util.find_spec(whole) is not None


def unknown_classes(text: str, is_known: Callable[[str], bool]) -> list[str]:
    """Return what looks like a class in the backticks of a page, outside of its code blocks, and is not known."""
    quoted = re.findall(r"`([^`]+)`", FENCE.sub("", text))
    return [name for one in quoted for name in CLASS.findall(one) if not is_known(name)]


def unknown_parts(text: str, parts: dict[str, str] = PARTS) -> list[str]:
    """Return the words in a text for parts of the library that do not exist."""
    missing = [words for words, name in parts.items() if not exists(name)]
    return [found.group() for words in missing for found in re.finditer(words, text)]


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the strings of a module, docstrings included, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def public_names() -> set[str]:
    modules = [importlib.import_module(f"resilience.{name}".rstrip(".")) for name in public_modules(SOURCE)]
    return {name for module in modules for name in getattr(module, "__all__", ())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_names_classes_that_exist(page: Path) -> None:
    path = page.relative_to(ROOT).as_posix()
    if path in OF_OTHER_LANGUAGES:
        return
    others = (*OF_OTHERS, *(importlib.import_module(name) for name in OF_OTHERS_IN.get(path, ())))
    known = public_names() | MADE_UP | {name for module in others for name in dir(module)}

    assert "Retry" in known
    assert unknown_classes(page.read_text("utf-8"), known.__contains__) == []


def test_the_pages_with_names_of_others_are_there() -> None:
    assert {page.relative_to(ROOT).as_posix() for page in PAGES} >= {*OF_OTHERS_IN, *OF_OTHER_LANGUAGES}


@pytest.mark.parametrize("page", [*PAGES, *MORE_PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_speaks_of_parts_that_exist(page: Path) -> None:
    assert unknown_parts(page.read_text("utf-8")) == []


def test_docstrings_and_messages_speak_of_parts_that_exist() -> None:
    paths = sorted(SOURCE.rglob("*.py"))
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {word}"
        for path in paths
        for line, text in strings(path.read_text("utf-8"))
        for word in unknown_parts(text)
    ]

    assert paths
    assert found == []


@pytest.mark.parametrize("name", ["Retry", "logs", "grpc.aio", "events.Event"])
def test_a_name_that_exists(name: str) -> None:
    assert exists(name)


@pytest.mark.parametrize("name", ["Nothing", "nothing.at_all", "events.Nothing"])
def test_a_name_that_does_not_exist(name: str) -> None:
    assert not exists(name)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`Retry` and `Hurry(3)`", ["Hurry"]),
        ("`Hurry.seconds`, `a.Hurry`, `resilience.Hurry`, `SOME_CONSTANT`, Hurry", ["Hurry"]),
        ("```python\n`Hurry`\n```\n`Retry`", []),
    ],
)
def test_an_unknown_class_is_found(text: str, found: list[str]) -> None:
    assert unknown_classes(text, {"Retry"}.__contains__) == found


def test_a_part_that_does_not_exist_is_found_and_one_that_does_is_not() -> None:
    parts = {r"(?i)\bmetrics?\b": "planted_metrics", r"\bRetry\b": "Retry"}

    assert unknown_parts("Metrics and Retry; each metric, symmetric", parts) == ["Metrics", "metric"]
    assert [line for line, text in strings('"""Retries."""\nx = f"{1} metrics"\n') if unknown_parts(text, parts)] == [2]
