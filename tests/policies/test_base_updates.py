"""Changes of a policy while calls run: settings and modes, all or none, and the pipeline of a policy alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from resilience import Bulkhead, CircuitBreaker, Mode, Pipeline, Policy, Retry, Timeout, backoff
from tests.support.threads import together

NOW = backoff.none()


def test_an_update_takes_what_the_constructor_takes() -> None:
    retry = Retry(5, wait=NOW)

    retry.update(attempts=None, wait=None)

    assert retry.settings == Retry().settings


@pytest.mark.parametrize("policy", [Bulkhead(1), CircuitBreaker(), Retry(), Timeout(1)], ids=repr)
def test_settings_are_changed_by_an_update_alone(policy: Policy[Any]) -> None:
    settings: Any = policy.settings
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings) if field.init}

    for name in given:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, name, 1)
    with pytest.raises(TypeError):
        type(settings)(*given.values())

    assert not hasattr(settings, "__dict__")
    assert type(settings)(**given) == settings


class Picky(Retry):
    ready = False

    def _settings_changed(self) -> None:
        if self.ready:
            raise RuntimeError("not now")
        super()._settings_changed()


def test_a_failed_update_changes_nothing_also_when_a_hook_fails() -> None:
    retry = Picky(2)
    retry.ready = True
    before = retry.settings

    with pytest.raises(RuntimeError):
        retry.update(attempts=7, mode="off")

    assert (retry.settings, retry.mode) == (before, "enforce")


def test_a_pipeline_has_no_settings_of_its_own() -> None:
    with pytest.raises(TypeError, match="has no setting attempts; it has none of its own"):
        Pipeline(Retry()).update(attempts=3)


def test_a_ctrl_c_in_an_update_that_lets_in_more_leaves_it_in_force() -> None:
    class Struck(Bulkhead):
        def _settings_changed(self) -> None:
            super()._settings_changed()
            raise KeyboardInterrupt

    struck = Struck(1)
    with pytest.raises(KeyboardInterrupt):
        struck.update(limit=3)

    assert struck.limit == 3


@pytest.mark.usefixtures("frequent_switches")
def test_a_mode_set_during_updates_stays() -> None:
    retry = Retry()
    reverted: list[int] = []

    def update() -> None:
        for number in range(2000):
            retry.update(attempts=1 + number % 3)

    def switch() -> None:
        for number in range(1000):
            mode = (Mode.OFF, Mode.SHADOW)[number % 2]
            retry.mode = mode
            if retry.mode != mode:
                reverted.append(number)

    assert together(update, update, switch) == []
    assert reverted == []


@pytest.mark.usefixtures("frequent_switches")
def test_a_policy_alone_has_one_budget_whoever_comes_first() -> None:
    for _ in range(50):
        retry = Retry()
        entries: list[Any] = []
        assert together(*[lambda retry=retry, entries=entries: entries.append(retry.entry()[0])] * 3) == []
        assert len({id(entry) for entry in entries}) == 1
