"""httpx and its fork httpx2: the same names, distinct classes. Which one a request belongs to, and classes made for it.

Nothing here imports either: a class is known by the module that it says it is from.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from resilience.errors import DeadlineExceededError, RejectedError

MODULES: Final = ("httpx", "httpx2")
SENDING: Final = frozenset({"handle_request", "handle_async_request"})
TRANSPORTS: Final = frozenset({"HTTPTransport", "AsyncHTTPTransport"})


def is_a(one: object, name: str) -> bool:
    """Return whether an object is of the class of that name in httpx or httpx2, or of one derived from it."""
    return any(kind.__name__ == name and kind.__module__ in MODULES for kind in type(one).__mro__)


def module_name_of(one: object) -> str | None:
    """Return "httpx" or "httpx2", if an object is of one of their classes, or of one derived from these."""
    return next((kind.__module__ for kind in type(one).__mro__ if kind.__module__ in MODULES), None)


def is_own(transport: object) -> bool:
    """Return whether requests are sent by the very method of httpx's or httpx2's (Async)HTTPTransport.

    Also where somebody has patched that; not where a subclass has a method of its own, which may do anything.
    """
    for kind in type(transport).__mro__:
        if SENDING & vars(kind).keys():
            return kind.__name__ in TRANSPORTS and kind.__module__.partition(".")[0] in MODULES
    return False


class HttpxModule:
    """One of the two modules, and what is made from its classes.

    Args:
        module: httpx or httpx2.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self._twins: dict[tuple[type[Any], str], Any] = {}

    def derived(self, ours: type[Any], theirs: str) -> Any:
        """Return a class that is one of ours, and one of theirs as well."""
        twin = self._twins.get((ours, theirs))
        if twin is None:
            facts = {name: getattr(ours, name) for name in ("__module__", "__qualname__", "__doc__")}
            if issubclass(ours, Exception):
                facts["__reduce__"] = _reduce
            bases: Any = (ours, getattr(self.module, theirs))
            twin = type(ours.__name__, bases, facts)
            twin = self._twins.setdefault((ours, theirs), twin)
        return twin

    def translated(self, error: RejectedError | DeadlineExceededError, request: Any = None) -> Exception:
        """Return an error of ours that is one of theirs as well: a `TimeoutException` or a `TransportError`.

        It has the attributes, notes, cause, context and traceback of the original.
        """
        name = "TimeoutException" if isinstance(error, DeadlineExceededError) else "TransportError"
        if is_a(error, name):
            return error
        twin: Exception = revive(self.module.__name__, type(error), error.args, error.__dict__)
        twin.__dict__["_request"] = request
        twin.__cause__ = error.__cause__
        twin.__context__ = error.__context__
        twin.__suppress_context__ = error.__suppress_context__
        return twin.with_traceback(error.__traceback__)


def revive(module: str, ours: type[Exception], args: tuple[Any, ...], facts: dict[str, Any]) -> Exception:
    """Make a translated error; also from a pickle."""
    theirs = "TimeoutException" if issubclass(ours, DeadlineExceededError) else "TransportError"
    kind = load_httpx_module(module).derived(ours, theirs)
    twin: Exception = kind.__new__(kind, *args)
    twin.args = args
    twin.__dict__.update(facts)
    return twin


def _reduce(twin: Exception) -> tuple[Any, ...]:
    ours, theirs = type(twin).__bases__
    facts = {name: fact for name, fact in twin.__dict__.items() if name != "_request"}
    return revive, (theirs.__module__, ours, twin.args, {**facts, "_request": None})


_loaded: dict[str, HttpxModule] = {}


def load_httpx_module(name: str) -> HttpxModule:
    """Return the dialect of a module, which is imported if need be."""
    if name not in _loaded:
        __import__(name)
        _loaded[name] = HttpxModule(sys.modules[name])
    return _loaded[name]


def httpx_module_of(one: object) -> HttpxModule:
    """Return the dialect that an object of httpx or httpx2, or of a class derived from theirs, belongs to."""
    name = module_name_of(one)
    if name is not None:
        return load_httpx_module(name)
    raise TypeError(f"{type(one).__module__}.{type(one).__qualname__} is neither of httpx nor of httpx2")
