"""Scopes that also bound the parts of a result that arrives bit by bit."""

from __future__ import annotations

from abc import abstractmethod

from resilience._policies.shapes import Scope


class PhasedScope(Scope):
    """A Scope that may also bound the time to the first item of a streamed result, and the silences after that."""

    @property
    @abstractmethod
    def first(self) -> float | None:
        """The longest time to the first item, in seconds; None for no bound."""

    @property
    @abstractmethod
    def idle(self) -> float | None:
        """The longest silence between two items, in seconds; None for no bound."""


def has_phases(scope: Scope) -> bool:
    """Return whether a Scope bounds parts of a streamed result."""
    return isinstance(scope, PhasedScope) and (scope.first is not None or scope.idle is not None)
