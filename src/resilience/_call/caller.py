"""The ways to call through a pipeline: as a decorator, by `call` and `acall`, with `bind`."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar, overload

from resilience._call.call import Call, CallOptions, unwrapped
from resilience._call.callables import check_function
from resilience._outcome.allowlist import Allowlist, is_bad
from resilience._util import validation
from resilience._util.finalizers import pending, run_pending
from resilience.errors import CarriedResult

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
D_co = TypeVar("D_co", covariant=True)


class Entry(Protocol):
    """What guards calls: the composed chains, and the count of what is in flight."""

    @property
    def execute(self) -> Callable[[Call], Any]:
        """The chain for plain functions."""
        ...

    @property
    def aexecute(self) -> Callable[[Call], Awaitable[Any]]:
        """The chain for coroutine functions."""
        ...

    @property
    def calls(self) -> set[Call]:
        """The calls that are running."""
        ...

    @property
    def waiting(self) -> deque[Callable[[], object]]:
        """Who is to be woken when nothing is in flight any more."""
        ...

    def leave(self, call: Call) -> None:
        """Count a call out, where somebody waits for that, or where its stream goes on."""
        ...

    def name_after(self, function: Callable[..., Any]) -> None:
        """Take the name of the first function decorated, if there is none yet."""
        ...

    def result_lists(self, default: Allowlist) -> tuple[Allowlist, ...]:
        """Return the allowlists that look at returned values; `default` is that of pipelines without one."""
        ...

    def current_owner(self) -> object:
        """Return the running task, or else the thread."""
        ...

    def enter_block(self, gate: Any, binding: CallOptions) -> BlockEntry:
        """Pass a gate by hand; a thread may have to wait."""
        ...

    async def aenter_block(self, gate: Any, binding: CallOptions) -> BlockEntry:
        """Pass a gate by hand; a task may have to wait."""
        ...


class BlockEntry(NamedTuple):
    """A gate that was passed by hand: the call that stands for the block, whose it is, and the token to settle."""

    call: Call
    owner: object
    admitted: bool
    token: Any


class Caller(ABC, Generic[D_co]):
    """Something that calls can be made through."""

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
        entry, binding = self.entry()
        entry.name_after(function)
        guarded = (_guard_async if is_async(function) else _guard)(entry, binding, function)
        guarded.__dict__["__resilience__"] = self  # a pipeline lives as long as what it guards
        return guarded

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R | D_co:
        """Call `function(*args, **kwargs)` through the policies, and return its result.

        Raises:
            TypeError: the function returned an awaitable; use `acall` for it.
        """
        entry, binding = self.entry()
        result: R | D_co = _execute_counted(entry, Call(binding, function, args, kwargs))
        return result

    @overload
    async def acall(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R | D_co: ...
    @overload
    async def acall(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R | D_co: ...
    async def acall(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `function(*args, **kwargs)` through the policies, await it if it is awaitable, return its result."""
        entry, binding = self.entry()
        return await _aexecute_counted(entry, Call(binding, function, args, kwargs))

    def _execute(self, call: Call) -> Any:
        """Pass a call of your own making through the policies; for integrations, which subclass `Call`.

        `call.function` is called for each attempt. A failure that is a value is raised by it as a `BadResult`.
        """
        entry, _ = self.entry()
        return _execute_counted(entry, call)

    async def _aexecute(self, call: Call) -> Any:
        """Pass an awaited call of your own making through the policies; see `run`."""
        entry, _ = self.entry()
        return await _aexecute_counted(entry, call)

    def call_options(
        self, failures: Allowlist, *, target: str | None = None, idempotent: bool | None = None
    ) -> CallOptions:
        """Return what an integration makes its calls with.

        Args:
            failures: what counts as a failure in a pipeline that was given no failures of its own.
            target: whom it calls, such as a host, unless `bind` has said so.
            idempotent: whether repeating a call does no harm; None leaves that to each call.
        """
        _, old = self.entry()
        known = old.idempotent if idempotent is None else idempotent
        return CallOptions(old.pipeline, old.operation, old.target or target, known, failures)

    def is_bad(self, result: object, failures: Allowlist) -> bool:
        """Return whether a returned value is a failure: by `failures`, those of the pipeline, or a policy's own."""
        entry, _ = self.entry()
        return is_bad(result, entry.result_lists(failures))

    def bind(
        self, *, operation: str | None = None, target: str | None = None, idempotent: bool | None = None
    ) -> Caller[D_co]:
        """Say what is known about the calls of one call site; policies, state and listeners stay shared.

        Args:
            operation: a name for events and metrics, instead of the function's.
            target: whom it calls, such as a host.
            idempotent: whether repeating a call does no harm. False: only failures that were surely not processed
                are retried.

        Returns:
            Something to decorate with or to call through. What is not given stays as it was.
        """
        if operation is not None:
            validation.text("operation", operation)
        if target is not None:
            validation.text("target", target)
        if idempotent is not None:
            validation.flag("idempotent", idempotent)
        entry, old = self.entry()
        binding = CallOptions(
            old.pipeline,
            old.operation if operation is None else operation,
            old.target if target is None else target,
            old.idempotent if idempotent is None else idempotent,
        )
        return _Bound(self, entry, binding)


class _Bound(Caller[D_co]):
    def __init__(self, owner: Caller[D_co], entry: Entry, binding: CallOptions) -> None:
        self._owner = owner  # a pipeline lives as long as what is bound to it
        self._both = entry, binding

    def entry(self) -> tuple[Entry, CallOptions]:
        return self._both


def _rewrap(method: Any, decorate: Callable[[Any], Any]) -> Any:
    return type(method)(decorate(method.__func__))


def _execute_counted(entry: Entry, call: Call) -> Any:
    if pending:
        run_pending()
    try:
        entry.calls.add(call)
        return entry.execute(call)
    except CarriedResult as carried:
        return carried.result
    finally:
        entry.leave(call)


async def _aexecute_counted(entry: Entry, call: Call) -> Any:
    if pending:
        run_pending()
    try:
        entry.calls.add(call)
        return await entry.aexecute(call)
    except CarriedResult as carried:
        return carried.result
    finally:
        entry.leave(call)


# What is decorated is called most often: these two do what the two above do, without the calls, and the look-ups done.


def _guard(entry: Entry, binding: CallOptions, function: Callable[..., Any]) -> Callable[..., Any]:
    come, go, waiting = entry.calls.add, entry.calls.discard, entry.waiting

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        call = Call(binding, function, args, kwargs)
        if pending:
            run_pending()
        try:
            come(call)
            return entry.execute(call)
        except CarriedResult as carried:
            return carried.result
        finally:
            if call.deferred is None:
                go(call)
            if call.deferred is not None or waiting:  # a drain looks the other way round
                entry.leave(call)

    return guarded


def _guard_async(entry: Entry, binding: CallOptions, function: Callable[..., Any]) -> Callable[..., Any]:
    come, go, waiting = entry.calls.add, entry.calls.discard, entry.waiting

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        call = Call(binding, function, args, kwargs)
        if pending:
            run_pending()
        try:
            come(call)
            return await entry.aexecute(call)
        except CarriedResult as carried:
            return carried.result
        finally:
            if call.deferred is None:
                go(call)
            if call.deferred is not None or waiting:  # a drain looks the other way round
                entry.leave(call)

    return guarded


def is_async(function: Any) -> bool:
    """Return whether calling it gives a coroutine: also for partials and objects with an async `__call__`."""
    inner = unwrapped(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)
