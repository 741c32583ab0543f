"""The table of docs/httpx-faults.md: what comes of each fault, for every client, in time, with nothing lost."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from tests.httpx import faults
from tests.httpx.faults import ATTEMPT, FAULTS, METHODS, RESENT, SLACK, TOTAL, Found, Servers
from tests.httpx.helpers import everywhere

pytestmark = [
    pytest.mark.slow,
    # Bodies that are cut leave generators of httpx to the garbage collector, and trio warns of that.
    pytest.mark.filterwarnings("ignore:Exception ignored (in|while finalizing generator).? <async_generator object"),
]
OUTCOMES = faults.documented()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as servers:
        yield servers


def test_every_fault_is_in_the_page() -> None:
    assert OUTCOMES.keys() == FAULTS.keys()


def check(found: Found, name: str, method: str) -> None:
    assert found.outcome == OUTCOMES[name][METHODS.index(method)]
    assert found.seconds <= TOTAL + SLACK
    if found.outcome == "DeadlineExceededError":
        assert found.seconds <= max(ATTEMPT, TOTAL if "body" in name else 0) + SLACK
    assert found.in_flight == 0, "a permit was lost"
    assert found.next_status == 200, "the place in the pool was lost"
    if method == "POST" and name not in RESENT:
        assert found.received <= 1, "a request that may have been processed was sent again"


@everywhere
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_comes_to_what_the_page_says(name: str, method: str, way: str, servers: Servers) -> None:
    check(servers.call(FAULTS[name], method, way), name, method)


@pytest.mark.parametrize("way", ["sync", "asyncio"])
@pytest.mark.parametrize("name", FAULTS)
def test_so_it_does_for_httpx2(name: str, way: str, servers: Servers) -> None:
    check(servers.call(FAULTS[name], "POST", way, httpx2), name, "POST")


@everywhere
@pytest.mark.parametrize("method", METHODS)
def test_a_connection_that_is_reset_at_once_is_lost_in_one_of_several_ways(
    method: str, way: str, servers: Servers
) -> None:
    found = servers.call("reset-at-once", method, way)

    error, _, attempts = found.outcome.partition(", ")
    assert error in {"ReadError", "WriteError", "RemoteProtocolError", "ConnectError"}
    assert attempts == "2 attempts" or (method == "POST" and attempts == "")
    assert (found.received, found.in_flight, found.next_status) == (0, 0, 200)


def test_the_check_notices_a_request_that_was_doubled(servers: Servers) -> None:
    found = servers.call("/503", "GET", "sync")  # two attempts, as those of a POST would be

    with pytest.raises(AssertionError, match="503"):
        check(found, "503", "POST")
