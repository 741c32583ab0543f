"""The public surface: what `resilience` shows, and under which name."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import FunctionType, ModuleType

import pytest

import resilience

LAZY = {"grpc", "httpx", "testing"}
SUBMODULES = {"backoff", "events", "logs"}


def test_the_names_are_sorted_and_there() -> None:
    names = resilience.__all__

    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
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
