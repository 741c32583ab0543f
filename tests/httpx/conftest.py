"""What the tests of httpx share."""

from __future__ import annotations

import pytest

from tests.httpx.helpers import WAYS, Ask


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return Ask(request.param)
