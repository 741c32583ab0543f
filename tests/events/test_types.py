"""The event types: frozen values that are given by name, and the words for modes, outcomes and reasons."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from enum import StrEnum
from types import ModuleType
from typing import Any, get_type_hints

import httpx
import pytest

from resilience import BadResult, BulkheadFullError, EndingKind, events
from resilience.events import (
    BreakerState,
    Event,
    FallbackUsed,
    GiveUpReason,
    Mode,
    Outcome,
    Rejected,
    RetryScheduled,
    TimedOut,
    TimeoutScope,
    _policy_types,
    _types,
)
from resilience.events._types import ModeName, type_name


def kinds(module: ModuleType) -> list[type[Event]]:
    """Return the event types of a module, by name."""
    found = {name: one for name, one in vars(module).items() if isinstance(one, type) and issubclass(one, Event)}
    return [found[name] for name in sorted(found) if found[name] is not Event]


KINDS = kinds(events)
COMMON = ["pipeline", "policy", "operation", "target", "at"]
each_kind = pytest.mark.parametrize("kind", KINDS)


def facts(kind: type[Event]) -> dict[str, Any]:
    """Return something for each field of an event."""
    return {field.name: f"some {field.name}" for field in dataclasses.fields(kind)}


def test_all_types_are_public() -> None:
    assert KINDS
    assert {*kinds(_types), *kinds(_policy_types)} == set(KINDS)
    assert {kind.__name__ for kind in KINDS} <= set(events.__all__)


@each_kind
class TestEvents:
    def test_it_says_where_and_when_it_happened(self, kind: type[Event]) -> None:
        event = kind(**facts(kind))

        assert [field.name for field in dataclasses.fields(kind)][: len(COMMON)] == COMMON
        assert [getattr(event, name) for name in COMMON] == [f"some {name}" for name in COMMON]

    def test_nothing_of_it_can_be_changed(self, kind: type[Event]) -> None:
        event: Any = kind(**facts(kind))

        for field in dataclasses.fields(kind):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(event, field.name, None)
            with pytest.raises(dataclasses.FrozenInstanceError):
                delattr(event, field.name)
        assert event == kind(**facts(kind))

    def test_it_has_room_for_nothing_else(self, kind: type[Event]) -> None:
        event: Any = kind(**facts(kind))

        assert not hasattr(event, "__dict__")
        with pytest.raises((AttributeError, TypeError)):
            event.more = 1

    def test_its_facts_are_given_by_name(self, kind: type[Event]) -> None:
        make: Any = kind

        with pytest.raises(TypeError):
            make(*facts(kind).values())

    def test_it_is_a_value(self, kind: type[Event]) -> None:
        event = kind(**facts(kind))

        assert event == kind(**facts(kind)) != kind(**{**facts(kind), "policy": "another"})
        assert hash(event) == hash(kind(**facts(kind)))
        assert copy.copy(event) == copy.deepcopy(event) == pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize("kind", [RetryScheduled, TimedOut, Rejected, FallbackUsed])
def test_an_event_is_of_a_policy_that_is_enforced_unless_it_says_so(kind: type[Any]) -> None:
    known = {name: value for name, value in facts(kind).items() if name != "mode"}

    assert kind(**known).mode is Mode.ENFORCE


@pytest.mark.parametrize("words", [Mode, Outcome, GiveUpReason, TimeoutScope, BreakerState])
def test_the_words_are_strings(words: type[StrEnum]) -> None:
    for word in words:
        assert word == word.value == str(word) == word.name.lower()
        assert words(word.value) is word


def test_every_kind_of_ending_has_an_outcome() -> None:
    assert [Outcome(kind) for kind in EndingKind] == [Outcome[kind.name] for kind in EndingKind]
    assert {*Outcome} - {Outcome(kind) for kind in EndingKind} == {Outcome.REJECTED, Outcome.FALLBACK}


@pytest.mark.parametrize("mode", Mode)
def test_the_type_of_a_mode_lists_the_words_of_all_members(mode: Mode) -> None:
    assert f"'{mode.value}'" in str(ModeName)


@pytest.mark.parametrize("kind", [Event, *Event.__subclasses__()])
def test_the_types_of_the_fields_can_be_looked_up(kind: type) -> None:
    assert isinstance(get_type_hints(kind), dict)


class Local(Exception):
    """An error of the application."""


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ConnectionError("secret"), "ConnectionError"),
        (BulkheadFullError("secret"), "BulkheadFullError"),
        (httpx.ConnectError("secret"), "httpx.ConnectError"),
        (Local("secret"), f"{__name__}.Local"),
        (BadResult(httpx.Response(503)), "httpx.Response"),
        (BadResult("secret"), "str"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_named_by_its_type(error: Exception, name: str) -> None:
    assert type_name(error) == name
