"""Tools for tests: virtual time, seeded randomness, recorded events.

    with virtual_time() as clock:
        quotes.call(flaky)            # retry waits take no time
    assert clock.elapsed < 10

Virtual time is for code without sockets: it advances to the next timer whenever no task can run.
"""

from resilience._util.exports import set_public_module as _set_public_module
from resilience.testing._asyncio import VirtualLoop, virtual_loop
from resilience.testing._faulty_grpc_server import FaultyGrpcServer, ReceivedRpc
from resilience.testing._faulty_requests import ReceivedRequest
from resilience.testing._faulty_server import FaultyServer
from resilience.testing._recorder import Recorder
from resilience.testing._virtual_time import VirtualClock, reset, seeded, virtual_time

__all__ = [
    "FaultyGrpcServer",
    "FaultyServer",
    "ReceivedRequest",
    "ReceivedRpc",
    "Recorder",
    "VirtualClock",
    "VirtualLoop",
    "reset",
    "seeded",
    "virtual_loop",
    "virtual_time",
]

_set_public_module(__name__, __all__, globals())
