"""Whether a task of asyncio is in a shielded cancel scope of anyio, such as one in which httpcore cleans up.

`Task.cancel` knows nothing of these scopes. anyio has no public way to ask about another task than the running one, so
this module uses private attributes of anyio 4. Where these are missing, no task is in a scope, and a test fails.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any, Final

_BACKEND: Final = "anyio._backends._asyncio"
_NO_STATES: Final[Mapping[Any, Any]] = {}


def innermost_scope(task: asyncio.Task[Any]) -> Any:
    """Return the innermost cancel scope that a task is in; None for none."""
    backend: Any = sys.modules.get(_BACKEND)
    state = getattr(backend, "_task_states", _NO_STATES).get(task)
    return None if state is None else getattr(state, "cancel_scope", None)


def in_shield(task: asyncio.Task[Any], around: Any) -> bool:
    """Return whether a task is in a shielded scope that it has entered since `around` was its innermost one."""
    scope = innermost_scope(task)
    while scope is not None and scope is not around:
        if scope.shield:
            return True
        scope = getattr(scope, "_parent_scope", None)
    return False
