"""Names of dependencies without credentials, for messages and log lines."""

from __future__ import annotations

import re
from typing import Final

_CREDENTIALS: Final = re.compile(r"(?<=//)[^/?#]*@|^[^/?#@]*:[^/?#]*@|[?#].*", re.DOTALL)
"""The user info of a URL, with or without a scheme, and its query and fragment."""


def without_credentials(target: str) -> str:
    """Return a target without credentials: `bind` takes any string, so it may be a URL."""
    return _CREDENTIALS.sub("", target)
