"""The public surface: what `resilience` and its public rooms show, and under which name."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import resilience

LAZY = {"asgi", "grpc", "httpx", "jobs", "opentelemetry", "prometheus", "testing"}
SUBMODULES = {"backoff", "events", "logs"}
ROOMS = sorted(
    path.parent.name
    for path in Path(*resilience.__path__).glob("*/__init__.py")
    if not path.parent.name.startswith("_")
)
each_room = pytest.mark.parametrize("room", ROOMS)


def in_order(names: Iterable[str]) -> list[str]:
    """Constants, classes, and the rest, each sorted."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


def test_the_names_are_sorted_and_there() -> None:
    names = resilience.__all__

    assert names == in_order(names)
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(resilience, name)] == []


def test_what_is_shown_is_what_is_public() -> None:
    assert set(dir(resilience)) == {*resilience.__all__, *LAZY}


def test_nothing_else_is_public_by_accident() -> None:
    shown = {
        name
        for name, value in vars(resilience).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }

    assert shown <= {*resilience.__all__, "Any"}


def test_everything_is_of_the_package_that_users_import() -> None:
    elsewhere = {
        name: value.__module__
        for name in resilience.__all__
        if isinstance(value := getattr(resilience, name), type | FunctionType) and value.__module__ != "resilience"
    }

    assert elsewhere == {}


def test_tracebacks_show_the_public_name() -> None:
    code = "import resilience; raise resilience.CircuitOpenError('the circuit is open')"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert shown.stderr.splitlines()[-1] == "resilience.CircuitOpenError: the circuit is open"


@pytest.mark.parametrize("name", sorted(resilience.__all__))
def test_classes_and_functions_pickle_by_their_public_name(name: str) -> None:
    value = getattr(resilience, name)
    if isinstance(value, type | FunctionType):
        assert pickle.loads(pickle.dumps(value)) is value


def test_submodules_are_the_documented_ones() -> None:
    assert {name for name in resilience.__all__ if isinstance(getattr(resilience, name), ModuleType)} == SUBMODULES


def test_what_is_not_there_is_said_plainly() -> None:
    with pytest.raises(AttributeError, match="module 'resilience' has no attribute 'nothing'"):
        _ = resilience.nothing


def test_every_public_room_is_shown() -> None:
    assert set(ROOMS) == {"events", "grpc", "httpx", "jobs", "opentelemetry", "prometheus", "testing"}
    assert set(ROOMS) <= set(dir(resilience))


@each_room
def test_the_names_of_a_public_room_are_sorted_and_there(room: str) -> None:
    module = importlib.import_module(f"resilience.{room}")
    names: list[str] = module.__all__

    assert names == in_order(names)
    assert [name for name in names if not hasattr(module, name)] == []
    assert getattr(resilience, room) is module


@each_room
def test_a_public_room_shows_nothing_by_accident(room: str) -> None:
    module = importlib.import_module(f"resilience.{room}")
    shown = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }

    assert shown <= set(module.__all__)


@each_room
def test_what_a_public_room_shows_is_of_that_room_and_pickles(room: str) -> None:
    module = importlib.import_module(f"resilience.{room}")
    values = [getattr(module, name) for name in module.__all__]
    made = [value for value in values if isinstance(value, type | FunctionType)]

    assert made
    assert {value.__module__ for value in made} <= {"resilience", f"resilience.{room}"}
    assert [value for value in made if pickle.loads(pickle.dumps(value)) is not value] == []
