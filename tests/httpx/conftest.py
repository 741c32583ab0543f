"""What the tests of httpx share."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.httpx.helpers import WAYS, Ask
from tests.httpx.model_server import ModelServer


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return Ask(request.param)


@pytest.fixture(scope="module")
def models() -> Generator[ModelServer]:
    with ModelServer() as server:
        yield server
