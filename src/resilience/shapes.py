"""The five shapes. A policy is pure decisions in one of them; the drivers do the calling, waiting and unwinding.

| shape      | it decides                                            |
|------------|-------------------------------------------------------|
| Gate       | may this call go in, and what does its ending tell    |
| Loop       | is another attempt worth it, and when                 |
| Scope      | until when may what is inside take                    |
| Race       | when does another attempt start beside this one       |
| Substitute | what stands in for a failure                          |

To write a policy, subclass a shape and fill in its hooks. Hooks must not block, sleep, or call out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar, Generic, Never, Protocol, TypeVar
from weakref import WeakSet

from resilience import checks
from resilience.allowlist import Allowlist
from resilience.call import Binding, Call, Site
from resilience.calling import Caller, D_co, Entry
from resilience.ending import Ending, EndingKind
from resilience.errors import RejectedError, RejectReason
from resilience.events import Mode
from resilience.locks import new_lock
from resilience.tickets import Ticket

Token = TypeVar("Token")
_changes = new_lock()


class Rewired(Protocol):
    """Something that composes policies, and does so anew when one of them changes."""

    def rewire(self) -> None:
        """Compose anew."""


class Policy(Caller[D_co]):
    """What all policies have in common. A policy object owns its state; in two pipelines, it is shared.

    Args:
        settings: a frozen dataclass that checks itself in `__post_init__`; None for a policy without settings.
        name: what events, metrics and `pipeline[name]` call it; None means its kind.
        mode: "enforce", "shadow" (decide and report, but let the call through) or "off".
    """

    kind: ClassVar[str] = "policy"
    settings: Any = None
    _name: str | None = None
    _mode: Mode = Mode.ENFORCE
    _attached: WeakSet[Rewired] | None = None
    _alone: tuple[Entry, Binding] | None = None
    make_pipeline: ClassVar[Callable[[Policy[Any]], tuple[Entry, Binding]]]

    def __init__(self, settings: Any = None, *, name: str | None = None, mode: str = Mode.ENFORCE) -> None:
        self.settings = settings
        self._name = None if name is None else checks.text("name", name)
        self._mode = checks.choice("mode", mode, Mode)

    @property
    def name(self) -> str:
        """The given name, or else the kind."""
        return self._name or self.kind

    @property
    def named(self) -> bool:
        """Whether a name was given."""
        return self._name is not None

    @property
    def mode(self) -> Mode:
        """How much the policy may do; it can be set while calls are running."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._mode = checks.choice("mode", mode, Mode)
        self.rewired()

    @property
    def failures(self) -> Allowlist | None:
        """This policy's own allowlist, its setting `on`; None: that of the pipeline."""
        own: Allowlist | None = getattr(self.settings, "on", None)
        return own

    def update(self, **settings: Any) -> None:
        """Change settings, or the mode, while calls are running: all of them or, if one is refused, none.

        Raises:
            TypeError: there is no such setting, or a value is of the wrong type.
            ValueError: a value is out of range.
        """
        mode = checks.choice("mode", settings.pop("mode", self._mode), Mode)
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
                self.configured()
            self._mode = mode
        self.rewired()

    def configured(self) -> None:
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

    def attach(self, pipeline: Rewired) -> None:
        """Tell `pipeline` of changes of this policy. It is held weakly."""
        with _changes:
            if self._attached is None:
                self._attached = WeakSet()
            self._attached.add(pipeline)

    def rewired(self) -> None:
        """Have every pipeline that it stands in compose anew."""
        for pipeline in list(self._attached or ()):
            pipeline.rewire()

    def entry(self) -> tuple[Entry, Binding]:
        """Return the entry of a pipeline that holds this policy alone."""
        if self._alone is None:
            self._alone = type(self).make_pipeline(self)
        return self._alone

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in self.describe().get("settings", {}).items())
        return f"{type(self).__name__}({shown})"


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return _plain_items(value)
    return repr(value)


def _plain_items(mapping: Any) -> dict[str, Any]:
    return {str(key): _plain(one) for key, one in mapping.items()}


class Gate(Policy[Never], Generic[Token]):
    """A policy that lets a call in, or not, and hears how it ended."""

    kind = "gate"
    holds: ClassVar[bool] = False
    """Whether a token stands for something that is in use for as long as the work goes on, such as a permit."""

    def admit(self, call: Call) -> Token | Ticket:
        """Let the call in and return a token; or raise a RejectedError; or return a ticket to wait on.

        A ticket that was granted becomes the token.
        """
        raise NotImplementedError

    def head(self, token: Token | Ticket) -> Token | Ticket:
        """Hear that the head of a streamed result has come; return the token to settle with at its end."""
        return token

    def settle(self, token: Token | Ticket, ending: Ending) -> None:
        """Hear how the call ended: exactly once for each token that `admit` gave and the driver took."""

    def refusal(self, call: Call) -> RejectedError:
        """Return the error for a call whose ticket was not granted in time."""
        return RejectedError(
            f"{self.name} did not let the call in within its longest wait",
            policy=call.site.name_of(self),
            pipeline=call.site.name,
            reason=RejectReason.QUEUE_TIMEOUT,
        )


class Series:
    """How one call has fared in a Loop: attempts made, when the first began, the last wait.

    `stamp` is the number of the last given-up mark before the latest attempt (see `given_up`). `shadow`: the loop
    may only say what it would do.
    """

    __slots__ = ("number", "previous", "shadow", "stamp", "started")

    def __init__(self, started: float, *, shadow: bool = False) -> None:
        self.shadow = shadow
        self.started = started
        self.number = 0
        self.stamp = 0
        self.previous: float | None = None


class Loop(Policy[Never]):
    """A policy that may have what is inside it called again."""

    kind = "loop"

    def delay(self, call: Call, ending: Ending, series: Series) -> float | None:
        """Return the seconds to wait before another attempt, 0 for at once; None to let the ending out.

        `ending.error` is what was raised, `series.number` says how many attempts this loop has made.
        """
        raise NotImplementedError

    def not_made(self, call: Call, ending: Ending, error: Exception, series: Series) -> None:
        """Hear that another attempt was wanted but refused further in, so that the earlier `error` comes out."""

    def reward(self, site: Site) -> Callable[[], object] | None:
        """Return what to run after each successful attempt in this pipeline; None for nothing."""
        del site
        return None


class Scope(Policy[Never]):
    """A policy that bounds the time of what is inside it."""

    kind = "scope"

    def deadline(self, call: Call, now: float) -> float:
        """Return the point in time at which to cut; both times are of the ambient clock."""
        raise NotImplementedError


class Heat(Protocol):
    """One race: which attempts run, which won."""

    def should_start(self, now: float) -> bool:
        """Return whether to start another attempt now; True counts it as started."""
        ...

    def wait(self, now: float) -> float | None:
        """Return the seconds until the next start is due; None when only completions matter."""
        ...

    def settle(self, attempt: int, ending: Ending, now: float) -> None:
        """Hear how an attempt ended."""
        ...

    @property
    def winner(self) -> int | None:
        """The attempt whose outcome is the call's; None while the race is on."""
        ...


class Race(Policy[Never]):
    """A policy that may run what is inside it several times at once."""

    kind = "race"

    def begin(self, call: Call, now: float) -> Heat:
        """Start a race for one call."""
        raise NotImplementedError


class Substitute(Policy[D_co]):
    """A policy that puts something in the place of an outcome that is no good."""

    kind = "substitute"

    def covers(self, call: Call, ending: Ending) -> bool:
        """Return whether to replace this ending: by default a failure, a rejection or a deadline."""
        del call
        rejected = ending.kind is EndingKind.ABANDONED and isinstance(ending.error, Exception)
        return rejected or ending.failure is not None

    def replace(self, call: Call, ending: Ending) -> Any:
        """Return the value to put in its place; on async calls it may be an awaitable. What it raises comes out."""
        raise NotImplementedError
