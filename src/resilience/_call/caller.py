"""The public ways to call through a pipeline: the decorator, `call`, `acall` and `bind`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from resilience._call.call import CallOptions
from resilience._call.callables import check_function, is_generator_function, unwrapped
from resilience._call.entry import Entry, aexecute, execute, guard, guard_async
from resilience._call.responses import NOT_RESPONSES, check_response
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
    """Base class of pipelines, policies, and the objects that their `bind` returns: functions are called through them.

    It is a decorator: `@pipeline` guards a function.
    """

    @abstractmethod
    def entry(self) -> tuple[Entry, CallOptions]:
        """Return the entry into the pipeline, and the options for its calls. Used by the library."""

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

        Args:
            function: the callable to guard.

        Returns:
            A function with the same signature; a coroutine function, generator function or async generator function
            if `function` is one.

        Raises:
            TypeError: `function` is a class, or not callable.

        A generator function is called when its first item is asked for. It is an attempt up to that item; then the
        policies hold their permits until the generator ends, and nothing is repeated.
        """
        if isinstance(function, classmethod | staticmethod):
            return _rewrap(function, self)
        check_function(function)
        entry, options = self.entry()
        entry.prepare_for(function)
        if is_generator_function(function):
            guarded = entry.guard_generator(options, function)
        else:
            guarded = (guard_async if is_async(function) else guard)(entry, options, function)
        guarded.__dict__["__resilience__"] = self  # keeps the pipeline alive as long as the function
        return guarded

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R | D_co:
        """Call `function(*args, **kwargs)` through the policies, and return its result.

        Raises:
            RejectedError: a policy rejected the call.
            DeadlineExceededError: the deadline passed.
            UsageError: the function returned an awaitable (use `acall`) or a generator, or a policy has an async hook.

        An exception of the function itself is raised unchanged, after retries, if any.
        """
        entry, options = self.entry()
        call = RunningCall.make(options, function, args, kwargs)
        result: R | D_co = execute(entry, call)
        if type(result) not in NOT_RESPONSES:
            check_response(call, result)
        return result

    @overload
    async def acall(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R | D_co: ...
    @overload
    async def acall(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R | D_co: ...
    async def acall(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `function(*args, **kwargs)` through the policies, await the result if it is awaitable, and return it.

        Raises:
            RejectedError: a policy rejected the call.
            DeadlineExceededError: the deadline passed.
            UsageError: the function returned a generator or an async generator.

        An exception of the function itself is raised unchanged, after retries, if any.
        """
        entry, options = self.entry()
        call = RunningCall.make(options, function, args, kwargs)
        result = await aexecute(entry, call)
        if type(result) not in NOT_RESPONSES:
            check_response(call, result)
        return result

    def bind(
        self, *, operation: str | None = None, target: str | None = None, idempotent: bool | None = None
    ) -> Caller[D_co]:
        """Return a Caller with options for one call site; it shares the policies, their state and the listeners.

        Args:
            operation: the name of the operation, for events and log lines; by default that of the function.
            target: the dependency that is called, such as a host.
            idempotent: whether a call may safely be repeated. If False, only failures are retried that the dependency
                certainly did not process.

        Returns:
            An object that decorates functions and makes calls. An option that is None keeps its present value.

        Raises:
            TypeError: an option has the wrong type.
            ValueError: `operation` or `target` is empty.
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
        self._owner = owner  # keeps the pipeline alive
        self._entry = entry, options

    def entry(self) -> tuple[Entry, CallOptions]:
        return self._entry


def _rewrap(method: Any, decorate: Callable[[Any], Any]) -> Any:
    """Decorate the function inside a classmethod or staticmethod."""
    return type(method)(decorate(method.__func__))


def options_of(
    caller: Caller[Any], failures: Allowlist, *, target: str | None = None, idempotent: bool | None = None
) -> CallOptions:
    """Return the options for the calls of an integration.

    Args:
        caller: the pipeline, or what its `bind` returned.
        failures: the allowlist for pipelines without an own one.
        target: the dependency that is called, such as a host; the target given to `bind` takes precedence.
        idempotent: whether a call may safely be repeated; None for the value given to `bind`.
    """
    _, old = caller.entry()
    known = old.idempotent if idempotent is None else idempotent
    return CallOptions(old.pipeline, old.operation, old.target or target, known, failures)


def is_async(function: Any) -> bool:
    """Return whether `function` is a coroutine function, a partial of one, or an object with an async `__call__`."""
    inner = unwrapped(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)
