"""The ways to call through a pipeline: as a decorator, by `call` and `acall`, with `bind`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from resilience._call.call import CallOptions
from resilience._call.callables import check_function, unwrapped
from resilience._call.entry import Entry, aexecute, execute, guard, guard_async
from resilience._call.running_call import RunningCall
from resilience._outcome.allowlist import Allowlist
from resilience._util import validation

if TYPE_CHECKING:
    from typing import Never

    import typing_extensions

    D_co = typing_extensions.TypeVar("D_co", covariant=True, default=Never)
else:
    D_co = TypeVar("D_co", covariant=True)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Caller(ABC, Generic[D_co]):
    """What calls can be made through: a pipeline, a policy, or what their `bind` returns."""

    @abstractmethod
    def entry(self) -> tuple[Entry, CallOptions]:
        """Return what guards the calls, and what is known about them beforehand."""

    @overload
    def __call__(self, function: classmethod[T, P, R], /) -> classmethod[T, P, R | D_co]: ...
    @overload
    def __call__(self, function: staticmethod[P, R], /) -> staticmethod[P, R | D_co]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Callable[P, Coroutine[object, None, R | D_co]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R | D_co]: ...
    def __call__(self, function: Any, /) -> Any:
        """Decorate a function, coroutine function, method, classmethod, staticmethod, or other callable.

        Raises:
            TypeError: it is a generator function (nothing has been called when it returns, so nothing could be
                guarded), a class, or not callable.
        """
        if isinstance(function, classmethod | staticmethod):
            return _rewrap(function, self)
        check_function(function)
        entry, options = self.entry()
        entry.name_after(function)
        guarded = (guard_async if is_async(function) else guard)(entry, options, function)
        guarded.__dict__["__resilience__"] = self  # a pipeline lives as long as what it guards
        return guarded

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R | D_co:
        """Call `function(*args, **kwargs)` through the policies, and return its result.

        Raises:
            TypeError: the function returned an awaitable; use `acall` for it.
        """
        entry, options = self.entry()
        result: R | D_co = execute(entry, RunningCall(options, function, args, kwargs))
        return result

    @overload
    async def acall(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R | D_co: ...
    @overload
    async def acall(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R | D_co: ...
    async def acall(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `function(*args, **kwargs)` through the policies, await it if it is awaitable, return its result."""
        entry, options = self.entry()
        return await aexecute(entry, RunningCall(options, function, args, kwargs))

    def bind(
        self, *, operation: str | None = None, target: str | None = None, idempotent: bool | None = None
    ) -> Caller[D_co]:
        """State what is known about the calls of one call site; policies, state and listeners stay shared.

        Args:
            operation: a name for events and metrics, instead of the function's.
            target: what is called, such as a host.
            idempotent: whether a call may be repeated without harm. False: only failures that were certainly not
                processed are retried.

        Returns:
            An object to decorate with or to call through. What is not given stays as it was.

        Raises:
            TypeError, ValueError: a parameter of the wrong type, or an empty name.
        """
        if operation is not None:
            validation.text("operation", operation)
        if target is not None:
            validation.text("target", target)
        if idempotent is not None:
            validation.flag("idempotent", idempotent)
        entry, old = self.entry()
        options = CallOptions(
            old.pipeline,
            old.operation if operation is None else operation,
            old.target if target is None else target,
            old.idempotent if idempotent is None else idempotent,
        )
        return _Bound(self, entry, options)


class _Bound(Caller[D_co]):
    def __init__(self, owner: Caller[D_co], entry: Entry, options: CallOptions) -> None:
        self._owner = owner  # a pipeline lives as long as what is bound to it
        self._both = entry, options

    def entry(self) -> tuple[Entry, CallOptions]:
        return self._both


def _rewrap(method: Any, decorate: Callable[[Any], Any]) -> Any:
    return type(method)(decorate(method.__func__))


def options_of(
    caller: Caller[Any], failures: Allowlist, *, target: str | None = None, idempotent: bool | None = None
) -> CallOptions:
    """Return what an integration makes its calls with.

    Args:
        caller: the pipeline, or what its `bind` returned.
        failures: the allowlist for pipelines that were given none of their own.
        target: what is called, such as a host, unless `bind` has said so.
        idempotent: whether a call may be repeated without harm; None leaves that to each call.
    """
    _, old = caller.entry()
    known = old.idempotent if idempotent is None else idempotent
    return CallOptions(old.pipeline, old.operation, old.target or target, known, failures)


def is_async(function: Any) -> bool:
    """Return whether calling it gives a coroutine: also for partials and objects with an async `__call__`."""
    inner = unwrapped(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)
