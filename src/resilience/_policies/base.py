"""What all policies have in common: settings, a name, a mode."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields, is_dataclass, replace
from typing import Any, ClassVar, NoReturn, Protocol
from weakref import ref

from resilience._call.call import CallOptions, PipelineInfo
from resilience._call.caller import Caller, D_co
from resilience._call.entry import Entry
from resilience._outcome.allowlist import Allowlist
from resilience._util import validation
from resilience._util.locks import new_lock
from resilience.events._types import Mode, ModeName

_changes = new_lock()
_firsts = new_lock()


class Recomposable(Protocol):
    """What composes policies, and composes them anew when one of them changes."""

    @property
    def info(self) -> PipelineInfo:
        """What the policies know about the pipeline."""
        ...

    def recompose(self) -> None:
        """Compose anew."""


class Standalone:
    """Makes the pipeline of a policy that is used without one; the room of the pipelines fills it in."""

    make: Callable[[Policy[Any]], tuple[Entry, CallOptions]]


class Policy(Caller[D_co]):
    """The base of all policies: settings, a name, a mode. A policy object owns its state; two pipelines share it.

    Args:
        settings: a frozen dataclass that validates itself in `__post_init__`; None for a policy without settings.
        name: what events, metrics and `pipeline[name]` call it; None means its kind.
        mode: "enforce", "shadow" (decide and report, but let the call through) or "off".

    Raises:
        TypeError, ValueError: an empty name, or a mode that there is not.
    """

    kind: ClassVar[str] = "policy"
    _repr_defaults: ClassVar[dict[str, Any]] = {}
    """The defaults of settings for which the constructor has None; `repr` leaves them out."""
    settings: Any = None
    _name: str | None = None
    _mode: Mode = Mode.ENFORCE
    _attached: tuple[ref[Recomposable], ...] = ()
    _alone: tuple[Entry, CallOptions] | None = None

    def __init__(self, settings: Any = None, *, name: str | None = None, mode: ModeName = Mode.ENFORCE) -> None:
        self.settings = settings
        self._name = None if name is None else validation.text("name", name)
        self._mode = validation.choice("mode", mode, Mode)

    @property
    def name(self) -> str:
        """The given name, or else the kind."""
        return self._name or self.kind

    @property
    def _has_name(self) -> bool:
        """Whether a name was given."""
        return self._name is not None

    @property
    def mode(self) -> Mode:
        """How much the policy may do; it can be set while calls are running."""
        return self._mode

    @mode.setter
    def mode(self, mode: ModeName) -> None:
        with _changes:
            self._mode = validation.choice("mode", mode, Mode)
        self._recompose()

    @property
    def failures(self) -> Allowlist | None:
        """This policy's own allowlist, its setting `on`; None: that of the pipeline."""
        own: Allowlist | None = getattr(self.settings, "on", None)
        return own

    @property
    def _expected_seconds(self) -> float | None:
        """Seconds that an answer may well take, in the eyes of this policy; None: it does not say."""
        return None

    def update(self, **settings: Any) -> None:
        """Change settings, or the mode, while calls are running: all of them or, if one is refused, none.

        Raises:
            TypeError: there is no such setting, or a value is of the wrong type.
            ValueError: a value is out of range.
        """
        mode = validation.choice("mode", settings.pop("mode"), Mode) if "mode" in settings else None
        with _changes:
            old: Any = self.settings
            known: set[str] = (
                {field.name for field in fields(old) if field.init} if is_dataclass(self.settings) else set()
            )
            if unknown := sorted(set(settings) - known):
                there = ", ".join(sorted(known)) or "none of its own"
                raise TypeError(f"{self.kind} has no setting {', '.join(unknown)}; it has {there}")
            if settings:
                self.settings = replace(old, **settings)
                try:
                    self._settings_changed()
                except Exception:
                    self.settings = old
                    raise
            self._mode = mode or self._mode
        self._recompose()

    def _settings_changed(self) -> None:
        """Adapt the state to new settings; called after an update, under a lock."""

    def describe(self) -> dict[str, Any]:
        """Return the kind, the name, the mode and the settings as plain data."""
        about: dict[str, Any] = {"kind": self.kind, "name": self.name, "mode": str(self._mode)}
        if is_dataclass(self.settings):
            about["settings"] = {
                one.name: _plain(getattr(self.settings, one.name)) for one in fields(self.settings) if one.init
            }
        return about

    def snapshot(self) -> dict[str, Any]:
        """Return the live state as plain data."""
        return {}

    def reset(self) -> None:
        """Forget everything learned, as if new."""

    def _attach(self, pipeline: Recomposable) -> None:
        """Tell `pipeline` of changes of this policy. It is held weakly."""
        with _changes:
            alive = tuple(one for one in self._attached if one() is not None)
            self._attached = (*alive, ref(pipeline))

    def _pipelines(self) -> list[Recomposable]:
        """Return the pipelines that it is part of."""
        return [pipeline for one in self._attached if (pipeline := one()) is not None]

    def _recompose(self) -> None:
        """Have every pipeline that it is part of composed anew."""
        for pipeline in self._pipelines():
            pipeline.recompose()

    def entry(self) -> tuple[Entry, CallOptions]:
        """Return the entry of a pipeline that consists of this policy alone."""
        if self._alone is None:
            with _firsts:
                self._alone = self._alone or Standalone.make(self)
        return self._alone

    def __copy__(self) -> NoReturn:
        raise self._not_copied()

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise self._not_copied()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise self._not_copied()

    def _not_copied(self) -> TypeError:
        name = type(self).__name__
        return TypeError(
            f"a {name} cannot be copied or pickled: its state, such as counts and permits, would exist twice; share "
            f"the object, or make another {name} with the same settings"
        )

    def __repr__(self) -> str:
        """Show what was set to something else than the default."""
        usual = {
            name: one.default for name, one in inspect.signature(type(self)).parameters.items()
        } | self._repr_defaults
        settings = {one.name: getattr(self.settings, one.name) for one in _fields(self.settings) if one.init}
        shown = [f"{name}={value!r}" for name, value in settings.items() if name not in usual or value != usual[name]]
        return f"{type(self).__name__}({', '.join(shown)})"


def _fields(settings: Any) -> tuple[Field[Any], ...]:
    return fields(settings) if is_dataclass(settings) else ()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return _plain_items(value)
    return repr(value)


def _plain_items(mapping: Any) -> dict[str, Any]:
    return {str(key): _plain(one) for key, one in mapping.items()}
