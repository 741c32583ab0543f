"""Public names of objects that are defined in private modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import FunctionType


def set_public_module(module: str, names: Iterable[str], namespace: Mapping[str, object]) -> None:
    """Set the `__module__` of classes and functions to a public module, for tracebacks, reprs and pickles.

    Args:
        module: the name of the public module.
        names: its `__all__`.
        namespace: its globals.
    """
    for name in names:
        exported = namespace[name]
        if isinstance(exported, type | FunctionType):
            exported.__module__ = module
