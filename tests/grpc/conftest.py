"""What the tests of gRPC share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.grpc.servers import Service, serving


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service
