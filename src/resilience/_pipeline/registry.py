"""The mapping of all named pipelines."""

from __future__ import annotations

import itertools
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from resilience._util.locks import members
from resilience._util.log_once import warn

if TYPE_CHECKING:
    from resilience._pipeline.pipeline import Pipeline

_all: WeakValueDictionary[int, Pipeline[Any]] = WeakValueDictionary()
_numbers = itertools.count()
_warned_names: set[str] = set()


class _Pipelines(Mapping[str, "Pipeline[Any]"]):
    """A live, weak view of all named pipelines; of two with the same name, the newest."""

    def __getitem__(self, name: str) -> Pipeline[Any]:
        return _all_by_name()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_all_by_name())

    def __len__(self) -> int:
        return len(_all_by_name())

    def items(self) -> ItemsView[str, Pipeline[Any]]:
        return _all_by_name().items()

    def values(self) -> ValuesView[Pipeline[Any]]:
        return _all_by_name().values()

    def __repr__(self) -> str:
        return f"pipelines({', '.join(self)})"


def _all_by_name() -> dict[str, Pipeline[Any]]:
    found = (_all.get(number) for number in sorted(members(_all)))
    return {pipeline.name: pipeline for pipeline in found if pipeline is not None}


_view = _Pipelines()


def pipelines() -> Mapping[str, Pipeline[Any]]:
    """Return a live mapping of all named pipelines by name; it keeps none alive. Of equal names, the newest counts."""
    return _view


def register(name: str, pipeline: Pipeline[Any] | None) -> None:
    """Add a pipeline to the mapping; None, of one that was garbage-collected, is ignored."""
    if pipeline is None:
        return
    if name in _view and name not in _warned_names:
        _warned_names.add(name)
        warn(f"there are two pipelines named {name!r}: pipelines() has the newest only, and events mix them up")
    _all[next(_numbers)] = pipeline
