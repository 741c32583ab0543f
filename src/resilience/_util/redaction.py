"""Texts without credentials, for messages and log lines."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_HARMLESS: Final = re.compile(r"[^@?#=&\s]*")
_CREDENTIALS: Final = re.compile(r"(?<=//)[^/?#]*@|^[^/?#@]*:[^/?#]*@|[?#].*", re.DOTALL)
"""The user info of a URL, with or without a scheme, and its query and fragment."""


def redacted(given: object) -> str:
    """Return what a user has given by mistake, for the message about it: nothing of what may hold a secret.

    A text is shown if it has neither blanks nor anything that a URL with credentials has; of other objects the type.
    """
    if not isinstance(given, str):
        return f"a {type(given).__name__}"
    return repr(given) if _HARMLESS.fullmatch(given) else "another text"


@lru_cache(maxsize=1024)
def without_credentials(target: str) -> str:
    """Return a target without credentials: `bind` takes any string, so it may be a URL."""
    return _CREDENTIALS.sub("", target)
