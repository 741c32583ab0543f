"""The base class of all policies: settings, a name and a mode."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields, is_dataclass, replace
from operator import attrgetter, methodcaller
from typing import Any, ClassVar, Protocol, SupportsIndex, TypeVar
from weakref import ref

from resilience._call.call import Call, CallOptions, PipelineInfo
from resilience._call.caller import Caller, D_co
from resilience._call.entry import Entry
from resilience._outcome.allowlist import Allowlist
from resilience._util import validation
from resilience._util.locks import new_lock
from resilience._util.values import plain, shown
from resilience.events._types import Mode, ModeName

P = TypeVar("P", bound="Policy[Any]")

_update_lock = new_lock()
_first_use_lock = new_lock()


class Recomposable(Protocol):
    """Composes policies into chains, and composes them again when one of the policies changes."""

    @property
    def info(self) -> PipelineInfo:
        """The part of the pipeline that policies can read."""
        ...

    def recompose(self) -> None:
        """Compose the chains again."""

    def effective_mode(self, policy: Policy[Any]) -> Mode:
        """Return the mode of a policy in calls of the pipeline: the most lenient of policy, pipeline and process."""
        ...


class Standalone:
    """Makes the pipeline of a policy that is used without one.

    `make` is set by `resilience._pipeline.pipeline`, since policies must not import the pipeline.
    """

    make: Callable[[Policy[Any]], tuple[Entry, CallOptions]]


class Policy(Caller[D_co]):
    """The base class of all policies: settings, a name and a mode.

    A policy object owns its state. Two pipelines that contain the same object share that state.

    Args:
        settings: a frozen dataclass that validates itself in `__post_init__`; None for a policy without settings.
        name: the name in events, in log lines and for `pipeline[name]`, not empty; None for the kind of the policy,
            numbered where a pipeline contains several of that kind.
        mode: "enforce"; "shadow", which decides and reports but lets the call through; or "off".

    Raises:
        TypeError: `name` or `mode` is not a string.
        ValueError: `name` is empty, or `mode` is not one of the three modes.
    """

    kind: ClassVar[str] = "policy"
    _shares_state: ClassVar[bool]
    """Set by a class, for itself and not for its subclasses, whose state is in objects that `fixed` can share."""
    _repr_defaults: ClassVar[dict[str, Any]] = {}
    """Defaults of the settings for which the constructor takes None; `repr` omits settings with these values."""
    settings: Any = None
    _name: str | None = None
    _mode: Mode = Mode.ENFORCE
    _attached: list[ref[Recomposable]] | None = None
    _alone: tuple[Entry, CallOptions] | None = None
    _partition: Policy[Any] | None = None
    """The Partition that it belongs to, under whose name it appears; None if it belongs to none."""
    _key: Any = None
    """Its key in the Partition; None for the overflow policy."""
    _target: str | None = None
    """The target of its calls, if it is known from its key."""
    _label_suffix: str = ""
    """What messages add to its name, to tell it from the other policies of the Partition."""

    def __init__(self, settings: Any = None, *, name: str | None = None, mode: ModeName = Mode.ENFORCE) -> None:
        self.settings = settings
        self._name = None if name is None else validation.text("name", name)
        self._mode = validation.choice("mode", mode, Mode)

    @property
    def name(self) -> str:
        """The name that was given; without one, the kind of the policy."""
        return self._name or self._default_name

    @property
    def _default_name(self) -> str:
        """The name in a pipeline if none was given; numbered there when repeated."""
        return self.kind

    @property
    def _has_name(self) -> bool:
        """Whether a name was given."""
        return self._name is not None

    @property
    def mode(self) -> Mode:
        """The mode of the policy: enforce, shadow or off. It can be set while calls are running.

        Of the modes of the process, the pipeline and the policy, the most lenient applies.
        """
        return self._mode

    @mode.setter
    def mode(self, mode: ModeName) -> None:
        with _update_lock:
            self._mode = validation.choice("mode", mode, Mode)
        self._recompose()

    @property
    def failures(self) -> Allowlist | None:
        """The policy's own allowlist, its setting `on`; None if it uses the pipeline's allowlist."""
        own: Allowlist | None = getattr(self.settings, "on", None)
        return own

    def permits_hedge(self, call: Call) -> bool:
        """Return whether a Hedge outside of this policy may start a further attempt of a call now."""
        del call
        return True

    @property
    def _expected_seconds(self) -> float | None:
        """The seconds within which the policy expects an answer; None if it has no such setting."""
        return None

    def update(self, **settings: Any) -> None:
        """Change settings, or the mode, while calls are running. If one value is invalid, nothing changes.

        Args:
            **settings: new values by the name of the constructor parameter; `mode` is accepted, too.

        Raises:
            TypeError: the policy has no such setting, or a value is of the wrong type.
            ValueError: a value is out of range.
        """
        mode = validation.choice("mode", settings.pop("mode"), Mode) if "mode" in settings else None
        with _update_lock:
            old: Any = self.settings
            new = self._changed(settings)
            if settings:
                self.settings = new
                try:
                    self._settings_changed()
                except Exception:
                    self.settings = old
                    raise
            self._mode = mode or self._mode
        self._recompose()

    def _changed(self, settings: dict[str, Any]) -> Any:
        """Return the settings with some changed, or raise the error that `update` raises for them."""
        own = self.settings
        known = {one.name for one in _fields(own) if one.init}
        if unknown := sorted(set(settings) - known):
            names = ", ".join(sorted(known)) or "none of its own"
            raise TypeError(f"{self.kind} has no setting {', '.join(unknown)}; it has {names}")
        return replace(own, **settings) if settings else own

    def _settings_changed(self) -> None:
        """Adapt the state to new settings. Called by `update` with its lock held; an exception undoes the update."""

    def describe(self) -> dict[str, Any]:
        """Return kind, name, mode and settings as plain data: dicts, strings, numbers, booleans and None."""
        description: dict[str, Any] = {"kind": self.kind, "name": self.name, "mode": str(self._mode)}
        settings = self.settings
        if is_dataclass(settings):
            description["settings"] = {name: plain(value) for name, value in _values(settings).items()}
        return description

    def snapshot(self) -> dict[str, Any]:
        """Return the current state as plain data; empty for a policy without state."""
        return {}

    def reset(self) -> None:
        """Discard the state, so that the policy behaves as if newly made. Settings, name and mode stay."""

    def _forget_calls(self) -> None:
        """Free what the calls in flight hold, and ignore how they end.

        Called in a forked child, where the threads of these calls do not exist.
        """

    def _busy_until(self, now: float) -> float:
        """Return the time until which its state must not be lost, although no call uses it; `now` if it may be.

        A Partition does not evict it before. `now` and the result are in seconds of the library's monotonic clock.
        """
        return now

    def _attach(self, pipeline: Recomposable) -> None:
        """Recompose `pipeline` whenever this policy changes. The pipeline is held weakly."""
        with _update_lock:
            attached = self._attached
            if attached is None:
                self._attached = [ref(pipeline)]
                return
            if not len(attached) & (len(attached) - 1):  # now and then, so that many pipelines cost no more than few
                attached[:] = [one for one in attached if one() is not None]
            attached.append(ref(pipeline))

    def _pipelines(self) -> list[Recomposable]:
        """Return the live pipelines that contain this policy, or its Partition."""
        found = [pipeline for one in tuple(self._attached or ()) if (pipeline := one()) is not None]
        return found if self._partition is None else found + self._partition._pipelines()

    def _recompose(self) -> None:
        """Recompose every pipeline that contains this policy."""
        for pipeline in self._pipelines():
            pipeline.recompose()

    def entry(self) -> tuple[Entry, CallOptions]:
        """Return the entry and the call options of a pipeline that consists of this policy alone.

        The pipeline is made on first use and kept.
        """
        if self._alone is None:
            with _first_use_lock:
                self._alone = self._alone or Standalone.make(self)
        return self._alone

    @property
    def _holds_state(self) -> bool:
        """Whether it holds more than its settings, so that a copy would be wrong."""
        return True

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Refuse to be copied or pickled with state."""
        if self._holds_state:
            name = type(self).__name__
            raise TypeError(
                f"a {name} cannot be copied or pickled: its state, such as counts and permits, would exist twice; "
                f"share the object, or make another {name} with the same settings"
            )
        return super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has in common with the policy: all but the pipelines that contain it."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_alone", "_attached")}

    def __repr__(self) -> str:
        """Show the settings that differ from the defaults."""
        defaults = {
            name: one.default for name, one in inspect.signature(type(self)).parameters.items()
        } | self._repr_defaults
        given = [
            f"{name}={shown(value)}"
            for name, value in _values(self.settings).items()
            if name not in defaults or value != defaults[name]
        ]
        return f"{type(self).__name__}({', '.join(given)})"


def fixed(policy: P) -> P:
    """Return what decides for the calls of one chain: a policy with the state of this one and its settings of now.

    So a call in flight keeps the rules that it began with. For a class that does not set `_shares_state` it is the
    policy itself.
    """
    if "_shares_state" not in vars(type(policy)):
        return policy
    twin = object.__new__(type(policy))
    vars(twin).update(vars(policy))
    return twin


def _values(settings: Any) -> dict[str, Any]:
    """Return the values of a settings dataclass by the name of the parameter; none for other objects."""
    return {one.name: getattr(settings, one.name) for one in _fields(settings) if one.init}


def _fields(settings: Any) -> tuple[Field[Any], ...]:
    """Return the fields of a settings dataclass; none for other objects."""
    return fields(settings) if is_dataclass(settings) else ()


forget_calls: Callable[[Policy[Any]], object] = methodcaller("_forget_calls")
"""Free what the calls in flight hold in a policy; in a forked child."""
key_in_partition: Callable[[Policy[Any]], object] = attrgetter("_key")
"""Return the key of a policy in its Partition; None if it has none."""
target_by_key: Callable[[Policy[Any]], str | None] = attrgetter("_target")
"""Return the target of the calls of a policy, if it is known from its key."""
expected_seconds: Callable[[Policy[Any]], float | None] = attrgetter("_expected_seconds")
"""Return the seconds that an answer may take by a policy; None if it does not say."""
