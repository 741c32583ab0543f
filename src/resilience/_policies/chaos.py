"""Chaos: inject failures, delays and results, to see how a system behaves on a bad day."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resilience._call.call import Call
from resilience._policies.shapes import Fault, Injector
from resilience._util import validation
from resilience._util.clock import clock, seeded
from resilience._util.log_once import hook_failed
from resilience._util.values import MISSING, Value
from resilience.events._types import Mode, ModeName


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChaosSettings(Value):
    """The settings of a Chaos; `Chaos` describes each."""

    rate: float | Callable[[Call], float]
    error: Any
    latency: float | Callable[[Call], float] | None
    result: Any
    seed: int | None
    enabled: bool | Callable[[], bool]

    def __post_init__(self) -> None:
        """Validate the settings; numbers become floats."""
        if not callable(self.rate):
            object.__setattr__(self, "rate", validation.number("rate", self.rate, high=1.0))
        if self.latency is not None and not callable(self.latency):
            object.__setattr__(self, "latency", validation.number("latency", self.latency))
        error = self.error
        if error is not None and not isinstance(error, Exception) and not callable(error):
            raise TypeError(
                f"error must be an exception, a type of exceptions or a callable that takes the call, not {error!r}"
            )
        if isinstance(error, type) and not issubclass(error, Exception):
            raise TypeError(f"error must be a subclass of Exception, not {error.__name__}")
        if inspect.iscoroutinefunction(error):
            raise TypeError(f"error must be a plain function, not the coroutine function {error.__name__}")
        if isinstance(error, Exception | type):
            _check_it_can_be_made(error)
        if error is None and self.latency is None and self.result is MISSING:
            raise TypeError("Chaos needs something to inject: error=, latency= or result=")
        if error is not None and self.result is not MISSING:
            raise TypeError("Chaos takes either error= or result=, not both")
        if self.seed is not None:
            validation.integer("seed", self.seed, low=0)
        if not isinstance(self.enabled, bool) and not callable(self.enabled):
            raise TypeError(f"enabled must be True, False or a callable without parameters, not {self.enabled!r}")


class Chaos(Injector):
    """Inject faults at its place in the pipeline. It does nothing unless it is enabled.

    Args:
        rate: the share of the calls that get a fault, in [0, 1]; or a callable that takes the call and returns the
            probability, or True or False.
        error: raised in place of what is inside: an exception, a type of exceptions, or a callable that takes the call
            and returns an exception. Of an exception, each call gets a copy.
        latency: a delay before what is inside, or before `error` or `result`, in seconds, >= 0; or a callable that
            takes the call and returns one. A Timeout outside cuts it, and then scores it as a slow dependency.
        result: returned in place of what is inside. An allowlist of results that lists it makes it a failure.
        seed: makes the choices the same in each run of the program, as long as calls come in the same order; None for
            the library's random source.
        enabled: whether it takes effect: True, False, or a callable that is asked for each call, such as a feature flag
            or a look at an environment variable.
        name: see `Policy`.
        mode: see `Policy`. In shadow mode, faults are reported but not injected.

    Raises:
        TypeError, ValueError: a parameter is of the wrong type or out of range; or nothing is given to inject.

    Usually it is the innermost policy, where it takes the place of the dependency. The process-wide `set_mode("off")`
    turns it off, too. Each fault is published as a `FaultInjected`.
    """

    kind = "chaos"
    settings: ChaosSettings

    def __init__(
        self,
        rate: float | Callable[[Call], float],
        *,
        error: Exception | type[Exception] | Callable[[Call], Exception] | None = None,
        latency: float | Callable[[Call], float] | None = None,
        result: Any = MISSING,
        seed: int | None = None,
        enabled: bool | Callable[[], bool] = False,
        name: str | None = None,
        mode: ModeName = Mode.ENFORCE,
    ) -> None:
        settings = ChaosSettings(rate=rate, error=error, latency=latency, result=result, seed=seed, enabled=enabled)
        super().__init__(settings, name=name, mode=mode)
        self.reset()

    def inject(self, call: Call) -> Fault | None:
        """Return the fault for a call; None for none. If a callable of the settings fails, log that once."""
        settings = self.settings
        if settings.enabled is False:
            return None
        enabled: Any = settings.enabled
        random = self._seeded or clock.random.random
        try:
            if enabled is not True and not enabled():
                return None
            rate = settings.rate(call) if callable(settings.rate) else settings.rate
            if not (rate is True or random() < rate):
                return None
            latency = settings.latency(call) if callable(settings.latency) else settings.latency
            return Fault(
                latency=0.0 if latency is None else validation.number("what latency= returns", latency),
                error=_error(settings.error, call),
                has_result=settings.result is not MISSING,
                result=settings.result,
            )
        except Exception as error:
            hook_failed("callable of a Chaos", self, error)
            return None

    def reset(self) -> None:
        """Begin the choices of the seed again."""
        self._seed = seed = self.settings.seed
        self._seeded = None if seed is None else seeded(seed)

    def _settings_changed(self) -> None:
        """Go on with the choices of the seed, unless that is another one."""
        if self.settings.seed != self._seed:
            self.reset()


def _error(error: Any, call: Call) -> Exception | None:
    """Return the exception to raise for a call, by the setting `error`; None for none."""
    if error is None:
        return None
    if isinstance(error, Exception):
        return _copy_of(error)
    made = error() if isinstance(error, type) else error(call)
    if not isinstance(made, Exception):
        raise TypeError(f"error= returned {made!r}, which is no exception")
    return made


def _copy_of(error: Exception) -> Exception:
    """Return a copy of an exception, also of one whose type needs more arguments than it keeps."""
    try:
        return copy.copy(error)
    except TypeError:
        made = type(error).__new__(type(error), *error.args)
        made.__dict__.update(error.__dict__)
        return made


def _check_it_can_be_made(error: Exception | type[Exception]) -> None:
    """Raise an error if an exception cannot be copied, or its type needs arguments."""
    try:
        _copy_of(error) if isinstance(error, Exception) else error()
    except Exception as failure:
        raise TypeError(
            f"error must be an exception that can be copied, or a type that needs no arguments, not {error!r} "
            f"({failure}); give a function that returns the exception"
        ) from failure
