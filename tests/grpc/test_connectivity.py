"""When it is certain that a request was never sent: the addresses of a target, and the state of its channel."""

import copy
from typing import Any

import grpc
import pytest

from resilience import Retry
from resilience.grpc import RPC_FAILURES
from resilience.grpc._connectivity import Connectivity, addresses, aio_connectivity_of, connectivity_of
from resilience.grpc._errors import ResilienceRpcError
from resilience.grpc._guard import Guard
from tests.grpc.helpers import Code, failed


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:50051", (" ipv4:127.0.0.1:50051: ",)),
        ("ipv4:127.0.0.1:50051", (" ipv4:127.0.0.1:50051: ",)),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", (" ipv4:10.0.0.1:1: ", " ipv4:10.0.0.2:2: ")),
        ("[::1]:50051", (" ipv6:%5B::1%5D:50051: ",)),
        ("ipv6:[::1]:50051", (" ipv6:%5B::1%5D:50051: ",)),
        ("localhost:50051", (" ipv4:127.0.0.1:50051: ", " ipv6:%5B::1%5D:50051: ")),
        ("dns:///localhost:50051", (" ipv4:127.0.0.1:50051: ", " ipv6:%5B::1%5D:50051: ")),
        ("quotes:50051", ()),
        ("dns:///quotes:50051", ()),
        ("quotes", ()),
        ("unix:/run/quotes.sock", ()),
        ("xds:///quotes", ()),
        ("", ()),
    ],
)
def test_the_addresses_of_a_target_that_are_certain(target: str, expected: tuple[str, ...]) -> None:
    assert addresses(target) == expected


UNREACHABLE = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused"


State = grpc.ChannelConnectivity


@pytest.mark.parametrize(
    ("target", "alone", "error", "unprocessed"),
    [
        ("127.0.0.1:1", True, failed(Code.UNAVAILABLE, UNREACHABLE), True),
        ("localhost:1", True, failed(Code.UNAVAILABLE, UNREACHABLE), True),
        ("127.0.0.1:1", False, failed(Code.UNAVAILABLE, UNREACHABLE), False),  # somebody further in may repeat calls
        ("127.0.0.1:2", True, failed(Code.UNAVAILABLE, UNREACHABLE), False),  # passed on by a server
        ("quotes:1", True, failed(Code.UNAVAILABLE, UNREACHABLE), False),  # nobody knows whose address that is
        ("127.0.0.1:1", True, failed(Code.UNAVAILABLE, "Socket closed"), False),
        ("127.0.0.1:1", True, failed(Code.INTERNAL, UNREACHABLE), False),
    ],
)
def test_only_what_is_certain_is_called_unprocessed(
    target: str, alone: bool, error: grpc.aio.AioRpcError, unprocessed: bool
) -> None:
    error = copy.copy(error)
    guard = Guard(Retry(), None, ResilienceRpcError, target, single_attempt=alone)
    guard.connectivity.watch(lambda: State.TRANSIENT_FAILURE)
    guard.examine(error, disconnected=guard.connectivity.is_disconnected())
    failure = RPC_FAILURES.classify(error)

    assert failure is not None
    assert failure.unprocessed is unprocessed


@pytest.mark.parametrize("before", [*State, None])
@pytest.mark.parametrize("after", [*State, None])
def test_the_words_are_believed_only_of_a_channel_without_a_connection(before: object, after: object) -> None:
    states = iter([before, after])
    reach = Connectivity("127.0.0.1:1")
    reach.watch(lambda: next(states))
    believed = reach.never_sent(failed(Code.UNAVAILABLE, UNREACHABLE), disconnected=reach.is_disconnected())

    disconnected = before in (State.IDLE, State.CONNECTING, State.TRANSIENT_FAILURE)
    assert believed is (disconnected and after is State.TRANSIENT_FAILURE)


def test_where_the_state_of_a_channel_is_unknown_nothing_is_believed() -> None:
    def closed() -> object:
        raise ValueError("Cannot invoke RPC: Channel closed!")

    for unknown in (None, closed, connectivity_of(object())):
        reach = Connectivity("127.0.0.1:1")
        if unknown is not None:
            reach.watch(unknown)
        assert not reach.is_disconnected()
        assert not reach.never_sent(failed(Code.UNAVAILABLE, UNREACHABLE), disconnected=True)


def test_grpc_still_has_the_private_name_that_tells_the_state_of_a_channel() -> None:
    channel = grpc.insecure_channel("127.0.0.1:1")
    connectivity: Any = connectivity_of(channel)

    assert connectivity() == State.IDLE.value[0]
    channel.close()
    with pytest.raises(ValueError, match="closed"):
        connectivity()


def test_asking_for_the_state_of_an_aio_channel_does_not_keep_it_alive() -> None:
    class Channel:
        def get_state(self) -> grpc.ChannelConnectivity:
            return State.READY

    channel: Any = Channel()
    connectivity = aio_connectivity_of(channel)
    assert connectivity() is State.READY
    del channel
    assert connectivity() is None
