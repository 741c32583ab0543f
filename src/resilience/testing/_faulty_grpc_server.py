"""FaultyGrpcServer: a gRPC server on loopback that misbehaves on request, for tests of clients."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.util import find_spec

from resilience.testing._connection import Connection
from resilience.testing._ports import Ports
from resilience.testing._rpc_faults import FAULTS, Asked, RpcFault, find, refuse
from resilience.testing._rpcs import GrpcConnection, Rpc


@dataclass(frozen=True, slots=True)
class ReceivedRpc:
    """An RPC that a FaultyGrpcServer has received, as far as it had arrived when it was looked at.

    Attributes:
        method: the full name of the method, such as "/quotes.Quotes/Get".
        metadata: the metadata by their names in lower case; the values of repeated ones are joined by ",", and those of
            binary ones are in base64, as sent.
        timeout: the seconds that the client allowed (`grpc-timeout`); None if it set no deadline.
        messages: the serialized messages of the request that have arrived.
        complete: whether all of them have.
    """

    method: str
    metadata: dict[str, str] = field(repr=False)
    timeout: float | None
    messages: tuple[bytes, ...] = field(repr=False)
    complete: bool


class FaultyGrpcServer:
    """A gRPC server on loopback that misbehaves as the method of an RPC says, and records what it receives.

        with FaultyGrpcServer() as server:
            server.set_fault("/quotes.Quotes/Get", "UNAVAILABLE?failures=2")
            channel = grpc.insecure_channel(server.target)

    A method of any service that is named after a fault does what that says, as in `/test.Faults/reset-stream`; methods
    of your own are given one by `set_fault`. The faults are described on the page "A misbehaving server" of the
    documentation. It serves all four kinds of method, without TLS. It listens inside the block only, on ports of
    127.0.0.1 that the system chooses. All waits are in real time, also inside `virtual_time()`. The end of the block
    ends all RPCs, closes all connections and joins all threads. It can be entered only once (RuntimeError).

    Attributes:
        target: the target of a channel, such as "127.0.0.1:40000".
        refused_target: that of a port on which nothing listens, so that connections are refused.
        accept_reset_target: that of one on which connections are accepted, and reset at once (RST).
        accept_close_target: that of one on which connections are accepted, and closed at once (FIN).
        silent_target: that of one on which connections are accepted, and nothing is ever sent.

    Raises:
        ImportError: the package h2 is not installed, which it needs; grpcio is needed by the client only.
    """

    def __init__(self) -> None:
        if find_spec("h2") is None:
            raise ImportError("FaultyGrpcServer needs the package h2: pip install h2")
        self._ports = Ports(
            type(self).__name__, self._converse, Connection.reset_on_close, Connection.linger, Connection.hold
        )
        self._lock = threading.Lock()
        self._rpcs: list[Rpc] = []
        self._faults: dict[str, tuple[RpcFault, Asked]] = {}
        self._failed = Counter[str]()

    def __enter__(self) -> FaultyGrpcServer:
        self._ports.__enter__()
        targets = [f"127.0.0.1:{port}" for port in self._ports.served]
        self.target, self.accept_reset_target, self.accept_close_target, self.silent_target = targets
        self.refused_target = f"127.0.0.1:{self._ports.refused}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ports.__exit__(*exc_info)

    def set_fault(self, method: str, fault: str, *, response: bytes = b"") -> None:
        """Say what a method does from now on.

        Args:
            method: the full name of the method, such as "/quotes.Quotes/Get", or a pattern of fnmatch, such as
                "/quotes.Quotes/*". Of several that match, the one that was set last counts.
            fault: the name of the fault, with its parameters as in a query: "UNAVAILABLE?failures=2&pushback=50".
            response: the serialized message of good answers. An empty one is a message with default values in
                Protocol Buffers.

        Raises:
            ValueError: the method is not written so, there is no such fault, it does not take one of the parameters, or
                the value of one is not allowed.
        """
        if not method.startswith("/") or method.count("/") != 2:
            raise ValueError(f"method must be like '/package.Service/Method', not {method!r}")
        try:
            found = find(fault, response)
        except LookupError as error:
            raise ValueError(error.args[0]) from None
        with self._lock:
            self._faults.pop(method, None)  # so that it becomes the last one
            self._faults[method] = found

    @property
    def connections(self) -> int:
        """How many connections have been accepted, on all ports."""
        return self._ports.connections

    @property
    def open_connections(self) -> int:
        """How many of them this side has not closed yet."""
        return self._ports.open_connections

    @property
    def rpcs(self) -> list[ReceivedRpc]:
        """The RPCs whose head has arrived, in order, each as far as it has arrived by now."""
        with self._lock:
            return [
                ReceivedRpc(rpc.method, dict(rpc.metadata), rpc.timeout, tuple(rpc.messages), rpc.complete)
                for rpc in self._rpcs
            ]

    def count(self, method: str | None = None) -> int:
        """Return how many RPCs were received of a method, given without the parameters of its fault; None: of all."""
        with self._lock:
            return sum(1 for rpc in self._rpcs if method in (None, rpc.method.partition("?")[0]))

    def clear(self) -> None:
        """Forget connections and RPCs, and let the faults start over; what `set_fault` has set stays."""
        self._ports.clear()
        with self._lock:
            self._rpcs.clear()
            self._failed.clear()

    def _converse(self, connection: Connection) -> None:
        GrpcConnection(connection, self._answer).serve()

    def _answer(self, rpc: Rpc) -> None:
        with self._lock:
            self._rpcs.append(rpc)
        try:
            fault, asked = self._choose(rpc.method)
        except LookupError as error:
            return refuse(rpc, "UNIMPLEMENTED", error.args[0])
        except ValueError as error:
            return refuse(rpc, "INVALID_ARGUMENT", str(error))
        with self._lock:
            key = asked.key or rpc.method
            self._failed[key] += 1
            fails = asked.failures is None or self._failed[key] <= asked.failures
        if not fails:
            fault, asked = FAULTS["ok"], Asked(response=asked.response)
        if fault.reads_requests:
            rpc.read_all()
        fault.run(rpc, asked)
        return None

    def _choose(self, method: str) -> tuple[RpcFault, Asked]:
        """Return the fault of a method: that which was set last, or the one that it is named after."""
        with self._lock:
            for pattern, found in reversed(self._faults.items()):
                if fnmatchcase(method, pattern):
                    return found
        return find(method.rpartition("/")[2], b"ok")
