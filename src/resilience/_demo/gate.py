"""The door of a service: a TCP relay with a port for each arm, which can reset connections, and be dead."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable

from resilience._demo.script import Arm

HOST = "127.0.0.1"
_NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


def reset(transport: asyncio.BaseTransport) -> None:
    """Close a connection with a TCP reset."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None and connection.fileno() != -1:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    if isinstance(transport, asyncio.Transport):
        transport.abort()


class Gate:
    """Relays connections to a server on the same machine.

    Args:
        refused: is called with the arm for each connection that is made while the service is dead.

    Attributes:
        ports: the port of each arm.
    """

    def __init__(self, refused: Callable[[Arm], object]) -> None:
        self.ports: dict[Arm, int] = {}
        self.refused = refused
        self.dead = False
        self.relays: set[Relay] = set()
        self._servers: list[asyncio.Server] = []

    async def open(self, backend: int) -> None:
        """Listen on a port for each arm, and relay to a port of this machine."""
        loop = asyncio.get_running_loop()
        for arm in Arm:

            def relay(arm: Arm = arm) -> Relay:
                return Relay(self, arm, backend)

            server = await loop.create_server(relay, HOST, 0)
            self._servers.append(server)
            self.ports[arm] = server.sockets[0].getsockname()[1]

    def die(self) -> None:
        """Reset all connections, and from now on each new one."""
        self.dead = True
        for relay in list(self.relays):
            relay.reset()

    def revive(self) -> None:
        """Relay again."""
        self.dead = False

    def reset(self, port: int) -> None:
        """Reset the connection of a client, given the port from which the server sees it come."""
        for relay in list(self.relays):
            if relay.port == port:
                relay.reset()

    def close(self) -> None:
        """Stop listening, and reset all connections."""
        for server in self._servers:
            server.close()
        self.die()


class Relay(asyncio.Protocol):
    """A connection of a client, and the one to the server that belongs to it.

    What is written faster than it is read is kept in memory: requests and answers here are a few bytes.
    """

    def __init__(self, gate: Gate, arm: Arm, backend: int) -> None:
        self._gate = gate
        self._arm = arm
        self._backend = backend
        self._inner: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None
        self._lost = False
        self.port = 0
        """The port of this end of the connection to the server."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the server; or reset the connection, if that is dead."""
        assert isinstance(transport, asyncio.Transport)
        self._outer = transport
        if self._gate.dead:
            self._gate.refused(self._arm)
            reset(transport)
            return
        self._gate.relays.add(self)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            inner, _ = await loop.create_connection(lambda: Answers(self), HOST, self._backend)
        except OSError:
            self.reset()
            return
        if self._lost:
            inner.abort()
            return
        self._inner = inner
        self.port = inner.get_extra_info("sockname")[1]
        for data in self._early:
            inner.write(data)

    def data_received(self, data: bytes) -> None:
        """Pass on what the client sends."""
        if self._inner is None:
            self._early.append(data)
        else:
            self._inner.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the connection to the server, too."""
        self._lost = True
        self._gate.relays.discard(self)
        if self._inner is not None:
            self._inner.close()

    def answer(self, data: bytes) -> None:
        """Pass on what the server sends."""
        if not self._lost:
            self._outer.write(data)

    def ended(self) -> None:
        """Close the connection of the client: the server has closed the other one."""
        if not self._lost:
            self._outer.close()

    def reset(self) -> None:
        """Reset both connections."""
        self._lost = True
        self._gate.relays.discard(self)
        reset(self._outer)
        if self._inner is not None:
            reset(self._inner)


class Answers(asyncio.Protocol):
    """The side of the server of a relayed connection."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def data_received(self, data: bytes) -> None:
        """Pass on what the server sends."""
        self._relay.answer(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the connection of the client, too."""
        self._relay.ended()
