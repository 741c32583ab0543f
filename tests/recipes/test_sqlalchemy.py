"""The recipe for SQLAlchemy: what its function takes for failures."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from resilience import Failure, FailureKind
from tests.recipes.pages import definitions

UNDONE = Failure(unprocessed=True, counted=False)


@pytest.fixture
def of_database() -> Callable[[Exception], Failure | None]:
    function: Callable[[Exception], Failure | None] = definitions("sqlalchemy.md", "def of_database").of_database
    return function


def wrapped(error: Exception) -> DBAPIError:
    """Wrap an exception of a driver as SQLAlchemy does."""
    return DBAPIError("INSERT", {}, error)


def adapted(error: Exception) -> Exception:
    """Wrap it as the dialects do whose driver is not an adapter of DBAPI: the driver's own exception is the cause."""
    adapter = Exception("adapted")
    adapter.__cause__ = error
    return adapter


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        pytest.param(wrapped(psycopg.errors.DeadlockDetected()), UNDONE, id="deadlock"),
        pytest.param(wrapped(psycopg.errors.SerializationFailure()), UNDONE, id="serialization"),
        pytest.param(wrapped(psycopg.OperationalError("lost")), Failure(), id="lost connection"),
        pytest.param(wrapped(adapted(ConnectionResetError())), Failure(), id="lost connection of an adapted driver"),
        pytest.param(wrapped(psycopg.errors.UniqueViolation()), None, id="a mistake"),
        pytest.param(ValueError(), None, id="of something else"),
    ],
)
def test_failures_of_drivers(
    of_database: Callable[[Exception], Failure | None], error: Exception, failure: Failure | None
) -> None:
    assert of_database(error) == failure


def test_an_exhausted_pool_is_a_failure_of_this_side(of_database: Callable[[Exception], Failure | None]) -> None:
    engine = sqlalchemy.create_engine("sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0)
    with engine.connect(), pytest.raises(PoolTimeout) as caught:
        engine.connect()
    engine.dispose()

    assert of_database(caught.value) == Failure(FailureKind.OVERLOAD, unprocessed=True, counted=False)
