"""Which of httpx and its fork httpx2 an object belongs to, and the classes that derive from theirs.

The two have the same names and distinct classes. To examine an object imports neither: its `__module__` is compared.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from resilience.errors import DeadlineExceededError, RejectedError
from resilience.httpx._privates import set_request

MODULES: Final = ("httpx", "httpx2")
SEND_METHODS: Final = frozenset({"handle_request", "handle_async_request"})
"""The methods of transports that send a request."""
TRANSPORTS: Final = frozenset({"HTTPTransport", "AsyncHTTPTransport"})
"""The transports that send requests through httpcore."""


def is_a(value: object, name: str) -> bool:
    """Return whether an object is an instance of the class of that name in httpx or httpx2."""
    for kind in type(value).__mro__:
        if kind.__name__ == name and (kind.__module__ in MODULES or _module_with(kind) is not None):
            return True
    return False


def module_name_of(value: object) -> str | None:
    """Return "httpx" or "httpx2" if an object is an instance of one of their classes, otherwise None."""
    kinds = type(value).__mro__
    for kind in kinds:
        if kind.__module__ in MODULES:
            return kind.__module__
    return next((name for kind in kinds if (name := _module_with(kind)) is not None), None)


def _module_with(kind: type) -> str | None:
    """Return the name of the module that a class is of, although it says another one: SDKs export some as their own."""
    name = kind.__name__
    return next((one for one in MODULES if getattr(sys.modules.get(one), name, None) is kind), None)


def is_own(transport: object) -> bool:
    """Return whether the method that sends requests is that of `HTTPTransport` or `AsyncHTTPTransport`.

    It may have been patched there. A subclass that overrides it may do anything, so it does not count.
    """
    for kind in type(transport).__mro__:
        if SEND_METHODS & vars(kind).keys():
            return kind.__name__ in TRANSPORTS and kind.__module__.partition(".")[0] in MODULES
    return False


class HttpxModule:
    """One of the two modules, and the classes that derive from its classes.

    Args:
        module: httpx or httpx2.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self._derived: dict[tuple[type[Any], str], Any] = {}

    def derived(self, ours: type[Any], theirs: str) -> Any:
        """Return a class that derives from a class of this package and from the class of that name in the module."""
        kind = self._derived.get((ours, theirs))
        if kind is None:
            attributes = {name: getattr(ours, name) for name in ("__module__", "__qualname__", "__doc__")}
            if issubclass(ours, Exception):
                attributes["__reduce__"] = _reduce
            bases: Any = (ours, getattr(self.module, theirs))
            kind = type(ours.__name__, bases, attributes)
            kind = self._derived.setdefault((ours, theirs), kind)
        return kind

    def translated(self, error: RejectedError | DeadlineExceededError, request: Any = None) -> Exception:
        """Return an error of the pipeline as one that is also a `TimeoutException` or `TransportError` of the module.

        It has the attributes, notes, cause, context and traceback of the original. An error that is one already is
        returned as it is.
        """
        name = "TimeoutException" if isinstance(error, DeadlineExceededError) else "TransportError"
        if is_a(error, name):
            return error
        translated: Exception = revive(self.module.__name__, type(error), error.args, error.__dict__)
        set_request(translated.__dict__, request)
        translated.__cause__ = error.__cause__
        translated.__context__ = error.__context__
        translated.__suppress_context__ = error.__suppress_context__
        return translated.with_traceback(error.__traceback__)


def revive(module: str, ours: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    """Return a new translated error; also called by pickle and copy."""
    theirs = "TimeoutException" if issubclass(ours, DeadlineExceededError) else "TransportError"
    kind = load_httpx_module(module).derived(ours, theirs)
    translated: Exception = kind.__new__(kind, *args)
    translated.args = args
    translated.__dict__.update(attributes)
    return translated


def _reduce(translated: Exception) -> tuple[Any, ...]:
    """The `__reduce__` of translated errors, whose classes cannot be imported by name. It leaves out the request."""
    ours, theirs = type(translated).__bases__
    return revive, (theirs.__module__, ours, translated.args, set_request(dict(translated.__dict__), None))


_loaded: dict[str, HttpxModule] = {}


def load_httpx_module(name: str) -> HttpxModule:
    """Return one of the modules by its name; it is imported if it has not been."""
    if name not in _loaded:
        __import__(name)
        _loaded[name] = HttpxModule(sys.modules[name])
    return _loaded[name]


def httpx_module_of(value: object) -> HttpxModule:
    """Return the module that an object belongs to, which is an instance of one of its classes.

    Raises:
        TypeError: the object belongs to neither module.
    """
    name = module_name_of(value)
    if name is not None:
        return load_httpx_module(name)
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} is neither of httpx nor of httpx2")
