"""What a Recorder can be made for."""

from __future__ import annotations

from typing import Any

import pytest

from resilience.testing import Recorder


def test_a_recorder_is_checked() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="pipeline must be"):
        Recorder(wrong)
