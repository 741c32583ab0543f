"""What is known about methods: which are idempotent, and which bypass the pipeline."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias

from resilience._call.call import CallOptions
from resilience._call.caller import is_async
from resilience._util import validation
from resilience._util.log_once import hook_failed, logger

Idempotent: TypeAlias = "bool | str | Iterable[str] | Callable[[str], bool | None] | None"
"""Which methods may be repeated: all or none, names or patterns of methods, or a function of the name of a method.

A function returns True or False; None and any other value count as False."""

HEALTH_CHECKS: Final = "/grpc.health.v1.Health/*"
"""The methods of the health checking protocol of gRPC, which bypass the pipeline by default."""
CALLS_TO_WATCH: Final = 200
"""The number of calls after which a pattern that has matched no method is logged."""
_NAME: Final = re.compile(r"/[^/]+/.+")
_WILDCARDS: Final = "*?["
_NO_SIDE_EFFECTS: Final = 1
_IDEMPOTENT: Final = 2
"""The values of google.protobuf.MethodOptions.IdempotencyLevel."""


class MethodOptions(CallOptions):
    """The options of the calls of one method.

    Attributes:
        hedgeable: whether a second attempt may be made while the first one runs.
        bypasses: whether its calls bypass the pipeline.
    """

    __slots__ = ("bypasses", "hedgeable")

    def __init__(self, known: CallOptions, method: str, *, idempotent: bool, hedgeable: bool, bypasses: bool) -> None:
        super().__init__(known.pipeline, known.operation or method, known.target, idempotent, known.failures)
        self.hedgeable = hedgeable
        self.bypasses = bypasses


class Patterns:
    """Names and patterns of methods.

    Args:
        parameter: the name of the parameter, for messages.
        patterns: one of them, or several.

    Raises:
        TypeError: `patterns` has the wrong type.
        ValueError: a name or pattern can match no method.
    """

    def __init__(self, parameter: str, patterns: str | Iterable[str]) -> None:
        given: Any = patterns
        self._parameter = parameter
        self._patterns: list[Any] = [given] if isinstance(given, str) else [*given]
        for pattern in self._patterns:
            if not isinstance(pattern, str):
                raise TypeError(f"a pattern in {parameter} must be a string, not {pattern!r}")
            has_wildcards = any(sign in pattern for sign in _WILDCARDS)
            if not (pattern.startswith(("/", "*")) if has_wildcards else _NAME.fullmatch(pattern)):
                raise ValueError(
                    f'a pattern in {parameter} must be "/package.Service/Method", or have wildcards, such as '
                    f'"/package.Service/Get*" or "*/Get*"; {pattern!r} would match no method'
                )
        self.unmatched: set[str] = set(self._patterns)

    def match(self, method: str) -> bool:
        """Return whether one of them matches the name of a method."""
        matching = [pattern for pattern in self._patterns if fnmatchcase(method, pattern)]
        self.unmatched.difference_update(matching)
        return bool(matching)

    def report_unmatched(self, methods: Iterable[str]) -> None:
        """Log the patterns that have matched no method so far, and with which methods that was."""
        if self.unmatched:
            logger.warning(
                "%s has %s, which no method has matched in the first %d calls; these were of %s (this is logged once)",
                self._parameter,
                ", ".join(repr(pattern) for pattern in sorted(self.unmatched)),
                CALLS_TO_WATCH,
                ", ".join(sorted(methods)[:5]),
            )
            self.unmatched.clear()


Matcher: TypeAlias = "Callable[[str], bool | None]"


def matcher(idempotent: Any) -> tuple[Matcher, Patterns | None]:
    """Return a function that returns whether a method is idempotent, None if unknown; and its patterns, if it has any.

    Raises:
        TypeError: `idempotent` has the wrong type, such as a mapping or an async function.
        ValueError: a name or pattern can match no method.
    """
    if idempotent is None or isinstance(idempotent, bool):
        return lambda method: idempotent, None
    if callable(idempotent):
        if is_async(idempotent):
            raise TypeError(f"idempotent takes a plain predicate, not one that is async: {idempotent!r}")
        return lambda method: _call_predicate(idempotent, method), None
    if not isinstance(idempotent, Iterable) or isinstance(idempotent, Mapping):
        raise TypeError(
            "idempotent must be True or False, names or patterns of methods such as "
            f'"/package.Service/Get*", or a predicate of the name of a method, not {idempotent!r}'
        )
    patterns = Patterns("idempotent", _typed(idempotent))
    # A method that no pattern matches may still be declared idempotent by its descriptor.
    return lambda method: patterns.match(method) or None, patterns


def _typed(patterns: Any) -> Iterable[str]:
    """Return patterns as they are, of which `Patterns` checks the type."""
    typed: Iterable[str] = patterns
    return typed


def _call_predicate(predicate: Callable[[str], object], method: str) -> bool:
    """Return what the user's predicate returns for a method; False if it raises or does not return True or False."""
    try:
        answer = predicate(method)
        return False if answer is None else validation.flag("what the idempotent predicate returns", answer)
    except Exception as error:
        hook_failed("idempotent predicate", predicate, error)
        return False


def declared_idempotent(method: str) -> tuple[bool, bool]:
    """Return whether the descriptor of a method declares it idempotent, and whether free of side effects.

    That is its option `idempotency_level`, from the default descriptor pool of protobuf, if that is loaded: generated
    code registers its services there. Otherwise neither.
    """
    module: Any = sys.modules.get("google.protobuf.descriptor_pool")
    if module is None:
        return False, False
    try:
        descriptor = module.Default().FindMethodByName(method.removeprefix("/").replace("/", "."))
        level: int = descriptor.GetOptions().idempotency_level
    except Exception:
        return False, False
    return level in (_NO_SIDE_EFFECTS, _IDEMPOTENT), level == _NO_SIDE_EFFECTS
