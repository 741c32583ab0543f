"""Imports of optional packages. If one is missing, the error names the extra that installs it."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_first(package: str, *others: str, extra: str | None = None) -> ModuleType:
    """Return the first of several packages that can be imported; each has an extra of the same name.

    Args:
        package: the first one.
        others: the others.
        extra: the extra of a single package, if it has another name.

    Raises:
        ModuleNotFoundError: none is installed. Its cause is the error of the first one.
        ImportError: none can be imported, and one is installed: this is its own error.
    """
    missing: ImportError | None = None
    broken: ImportError | None = None
    for name in (package, *others):
        try:
            return importlib.import_module(name)
        except ImportError as error:
            if _has_run(name, error):
                broken = broken or error
            else:
                missing = missing or error
    if broken is not None:
        raise broken
    absent = " nor ".join((f"neither {package}", *others)) + " is" if others else f"{package} is not"
    extras = " or ".join(f'pip install "resilience-client[{name}]"' for name in (extra or package, *others))
    raise ModuleNotFoundError(f"{absent} installed; to install it: {extras}", name=package) from missing


def _has_run(package: str, error: ImportError) -> bool:
    """Return whether code of the package had begun to run when the error was raised: then it is installed."""
    traceback = error.__traceback__
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__"))
        if name == package or name.startswith(f"{package}."):
            return True
        traceback = traceback.tb_next
    return False
