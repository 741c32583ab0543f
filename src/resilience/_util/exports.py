"""Public names of what lives in private modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import FunctionType


def set_public_module(module: str, names: Iterable[str], namespace: Mapping[str, object]) -> None:
    """Give classes and functions the module that users import them from, for tracebacks, reprs and pickles.

    Args:
        module: the name of the public module.
        names: its `__all__`.
        namespace: its globals.
    """
    for name in names:
        one = namespace[name]
        if isinstance(one, type | FunctionType):
            one.__module__ = module
