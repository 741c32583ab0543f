"""A live mapping of named objects, which keeps none alive."""

from __future__ import annotations

import itertools
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

from resilience._util.locks import members
from resilience._util.log_once import warn


class Named(Protocol):
    """An object with a name."""

    @property
    def name(self) -> str:
        """The name."""
        ...


T = TypeVar("T", bound=Named)


class Registry(Mapping[str, T]):
    """A live, weak view of all named pipelines; of two with the same name, the newest."""

    def __init__(self) -> None:
        self._all: WeakValueDictionary[int, T] = WeakValueDictionary()
        self._numbers = itertools.count()
        self._warned_names: set[str] = set()

    def __getitem__(self, name: str) -> T:
        return self._by_name()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name())

    def __len__(self) -> int:
        return len(self._by_name())

    def items(self) -> ItemsView[str, T]:
        """Return a view of the names and pipelines there are now."""
        return self._by_name().items()

    def values(self) -> ValuesView[T]:
        """Return a view of the pipelines there are now."""
        return self._by_name().values()

    def __repr__(self) -> str:
        return f"pipelines({', '.join(self)})"

    def _by_name(self) -> dict[str, T]:
        found = (self._all.get(number) for number in sorted(members(self._all)))
        return {one.name: one for one in found if one is not None}

    def register(self, name: str, one: T | None) -> None:
        """Add an object; None, for one that was garbage-collected, is ignored. Warn of a name that another has."""
        if one is None:
            return
        if name in self and name not in self._warned_names:
            self._warned_names.add(name)
            warn(f"there are two pipelines named {name!r}: pipelines() has the newest only, and events mix them up")
        self._all[next(self._numbers)] = one
