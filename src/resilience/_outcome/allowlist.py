"""Allowlists: which outcomes are failures of the dependency. Only failures are retried, counted or replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, TypeAlias

from tenacity.retry import retry_base

from resilience._outcome import tenacity_adapter
from resilience._outcome.failure import TRANSIENT, Failure, FailureKind, default_failure, leaves, merged
from resilience._util.log_once import hook_failed
from resilience.errors import BadResult, RejectedError

__all__ = [
    "ANSWER",
    "Allowlist",
    "Answer",
    "ErrorPredicate",
    "Failure",
    "FailureKind",
    "Failures",
    "Lookup",
    "ResultPredicate",
    "Rule",
    "Verdict",
    "default_failure",
    "is_bad",
    "leaves",
]


class Answer(Enum):
    """The type of `ANSWER`."""

    ANSWER = "a known answer of a healthy dependency"
    """The outcome is a known answer of a healthy dependency."""


ANSWER: Final = Answer.ANSWER
"""Returned by a predicate of an allowlist for a known answer of a healthy dependency."""
Verdict: TypeAlias = "bool | Failure | Answer | None"
"""The result of a predicate: True or a Failure for a failure, False or None for none, ANSWER for a known answer."""
ErrorPredicate: TypeAlias = "Callable[[Exception], Verdict]"
Rule: TypeAlias = "Failure | Callable[[Any], Failure | None] | None"
"""The classification of an exception type: a failure, None for no failure, or a function that classifies instances."""
Lookup: TypeAlias = "Callable[[type], Rule]"
ResultPredicate: TypeAlias = "Callable[[Any], Verdict]"
Failures: TypeAlias = "Allowlist | type[Exception] | tuple[type[Exception], ...] | ErrorPredicate | retry_base"
"""An allowlist, or what `Allowlist.of` converts: an exception type, a tuple of them, a predicate, a `retry_if_*`."""


class Allowlist:
    """A set of outcomes that are failures of the dependency.

    Args:
        *types: the exception types that are failures, subclasses included. If none is given, but `when` is, all
            exceptions are passed to `when`.
        when: a predicate that is called with an exception of one of the types. It returns True or a `Failure` for a
            failure, False or None for no failure, and `ANSWER` for a known answer of a healthy dependency, such as the
            status code for "not found".
        answers: the exception types that are known answers of a healthy dependency, such as `CardDeclined`. They are
            good outcomes, even if `types` include them.

    Raises:
        TypeError: an item of `types` or `answers` is not a subclass of Exception (KeyboardInterrupt, GeneratorExit and
            asyncio.CancelledError are never failures), or `when` is not callable, or is async.

    If no predicate returns a `Failure`, a TimeoutError is a failure of kind TIMEOUT, a ConnectionRefusedError one that
    is known to be unprocessed, and any other exception one of kind TRANSIENT. An ExceptionGroup is a failure if all its
    leaves are. A `RejectedError` never is, since the dependency was not called. `|` joins allowlists.
    """

    __slots__ = ("_answers", "_error_rules", "_lookups", "_plain", "_result_rules", "verdicts")

    def __init__(
        self,
        *types: type[Exception],
        when: ErrorPredicate | None = None,
        answers: tuple[type[Exception], ...] = (),
    ) -> None:
        _check_types("an Allowlist's types", types)
        _check_types("answers", answers)
        if when is not None and not callable(when):
            raise TypeError(f"when must be a callable that takes the exception, not {when!r}")
        _check_not_async(when)
        rules: tuple[tuple[tuple[type[Exception], ...], ErrorPredicate], ...] = ()
        if when is not None:
            rules = ((types or (Exception,), when),)
        self._set(types if when is None else (), rules, (), answers)

    def _set(
        self,
        plain: tuple[type[Exception], ...],
        error_rules: tuple[tuple[tuple[type[Exception], ...], ErrorPredicate], ...],
        result_rules: tuple[ResultPredicate, ...],
        answers: tuple[type[Exception], ...],
        lookups: tuple[Lookup, ...] = (),
    ) -> Allowlist:
        self._lookups = lookups
        self.verdicts: dict[type, Any] = {}
        """The verdicts on exception types that do not depend on the instance; a cache that `ending.judge` fills."""
        self._plain = plain
        self._error_rules = error_rules
        self._result_rules = result_rules
        self._answers = answers
        return self

    @classmethod
    def of_results(cls, predicate: ResultPredicate) -> Allowlist:
        """Return an allowlist of returned values.

        Args:
            predicate: called with the value; returns True or a `Failure` if it is a failure.

        Raises:
            TypeError: `predicate` is not callable, or is async.
        """
        if not callable(predicate):
            raise TypeError(f"of_results takes a callable that gets the returned value, not {predicate!r}")
        _check_not_async(predicate)
        return cls.__new__(cls)._set((), (), (predicate,), ())

    @classmethod
    def of_types(cls, lookup: Lookup) -> Allowlist:
        """Return an allowlist of exceptions by their type.

        Args:
            lookup: called with the type; returns a Failure, None if it is no failure, or a function that is called with
                the exception and returns a Failure or None.
        """
        return cls.__new__(cls)._set((), (), (), (), (lookup,))

    @classmethod
    def of(cls, failures: Failures) -> Allowlist:
        """Return an allowlist for an exception type, a tuple of types, a predicate, or a `retry_if_*` of tenacity.

        An allowlist is returned unchanged.

        Raises:
            TypeError: `failures` is none of these, or is async.
        """
        if isinstance(failures, Allowlist):
            return failures
        given: Any = failures
        if isinstance(given, retry_base):
            _check_not_async(given)
            errors = cls(when=tenacity_adapter.error_predicate(given))
            if not tenacity_adapter.looks_at_results(given):
                return errors
            return errors | cls.of_results(tenacity_adapter.result_predicate(given))
        if issubclass(type(given), type):
            return cls(given)
        if issubclass(type(given), tuple):
            return cls(*given)
        if callable(failures):
            return cls(when=given)
        raise TypeError(
            f"expected an Allowlist, an exception type, a tuple of exception types or a predicate, not {failures!r}"
        )

    def __or__(self, other: Failures) -> Allowlist:
        """Join two allowlists: an outcome is a failure if either lists it, and an answer if it is one for either."""
        right = Allowlist.of(other)
        return Allowlist.__new__(Allowlist)._set(
            self._plain + right._plain,
            self._error_rules + right._error_rules,
            self._result_rules + right._result_rules,
            self._answers + right._answers,
            self._lookups + right._lookups,
        )

    def __ror__(self, other: Failures) -> Allowlist:
        """Join a type, a tuple or a predicate with an allowlist."""
        return Allowlist.of(other) | self

    def __repr__(self) -> str:
        parts = [kind.__name__ for kind in self._plain]
        for types, when in self._error_rules:
            parts.append(f"{'|'.join(kind.__name__ for kind in types)} when {_name(when)}")
        parts += [_name(lookup) for lookup in self._lookups]
        parts += [f"results when {_name(rule)}" for rule in self._result_rules]
        parts += [f"answers={'|'.join(kind.__name__ for kind in self._answers)}"] if self._answers else []
        return f"Allowlist({', '.join(parts)})"

    @property
    def rejections(self) -> tuple[type[Exception], ...]:
        """The listed exception types that are rejections by policies. They have no effect: such are no failures."""
        return tuple(kind for kind in self._plain if issubclass(kind, RejectedError))

    @property
    def lists_results(self) -> bool:
        """Whether a returned value can be a failure. If not, returned values are not examined."""
        return bool(self._result_rules)

    def classify(self, outcome: object) -> Failure | None:
        """Return the failure for an outcome; None if it is not a failure.

        Args:
            outcome: an exception or a returned value.

        Exceptions of predicates are raised. Inside a pipeline they are logged once, and the outcome is not a failure.
        """
        if not isinstance(outcome, BaseException):
            return self._classify_result(outcome)
        if isinstance(outcome, BadResult):
            return self._classify_result(outcome.result)
        if not isinstance(outcome, Exception) or isinstance(outcome, RejectedError):
            return None
        if self._answers and isinstance(outcome, self._answers):
            return None
        if isinstance(outcome, ExceptionGroup):
            return self._classify_group(list(leaves(outcome)))
        if isinstance(outcome, self._plain):
            return default_failure(outcome)
        for types, when in self._error_rules:
            if isinstance(outcome, types):
                verdict = when(outcome)
                if verdict and verdict is not ANSWER:
                    return verdict if isinstance(verdict, Failure) else default_failure(outcome)
        for lookup in self._lookups:
            rule = lookup(type(outcome))
            failure = rule if rule is None or isinstance(rule, Failure) else rule(outcome)
            if failure is not None:
                return failure
        return None

    def lists(self, error: BaseException) -> bool:
        """Return whether an exception is listed, rejections included, for a policy that replaces outcomes."""
        if isinstance(error, RejectedError):
            verdicts = (when(error) for types, when in self._error_rules if isinstance(error, types))
            return isinstance(error, self._plain) or any(one and one is not ANSWER for one in verdicts)
        return self.classify(error) is not None

    def is_by_type(self, error: Exception) -> bool:
        """Return whether all exceptions of the same type are classified like this one."""
        if self._error_rules or isinstance(error, ExceptionGroup | BadResult):
            return False
        return not any(callable(lookup(type(error))) for lookup in self._lookups)

    def is_answer(self, outcome: object) -> bool:
        """Return whether an outcome is known to be good: a value that is not listed, or a known answer."""
        if isinstance(outcome, BadResult):
            return self._classify_result(outcome.result) is None
        if isinstance(outcome, BaseException):
            return isinstance(outcome, self._answers) or any(
                isinstance(outcome, types) and when(outcome) is ANSWER for types, when in self._error_rules
            )
        return self._classify_result(outcome) is None

    def _classify_result(self, result: object) -> Failure | None:
        for rule in self._result_rules:
            verdict = rule(result)
            if verdict and verdict is not ANSWER:
                return verdict if isinstance(verdict, Failure) else TRANSIENT
        return None

    def _classify_group(self, errors: list[BaseException]) -> Failure | None:
        failures: list[Failure] = []
        for leaf in errors:
            failure = self.classify(leaf)
            if failure is None:
                return None
            failures.append(failure)
        return merged(failures)


def _check_not_async(predicate: object) -> None:
    if tenacity_adapter.is_async(predicate):
        raise TypeError(
            f"{_name(predicate)} is an async predicate; only Retry(on=...) takes one, and only for awaited calls"
        )


def _check_types(what: str, types: Any) -> None:
    if not issubclass(type(types), tuple):
        raise TypeError(f"{what} must be a tuple of exception types, not {types!r}")
    for kind in types:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(f"{what} must be subclasses of Exception, not {kind!r}")


def _name(hook: object) -> str:
    return getattr(hook, "__qualname__", type(hook).__qualname__)


def is_bad(result: Any, allowlists: Iterable[Allowlist]) -> bool:
    """Return whether any of the allowlists lists a returned value. Errors of predicates are logged once."""
    for allowlist in allowlists:
        try:
            if allowlist.classify(result) is not None:
                return True
        except Exception as error:
            hook_failed("predicate of an allowlist", allowlist, error)
    return False
