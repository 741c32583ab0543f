"""A server over TLS that wants a certificate of its clients, or breaks the connection, and a proxy that refuses."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import trustme

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Served:
    """What a server has seen."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connections = 0
        self.requests = 0


@contextmanager
def serving(handle: Callable[[socket.socket, Served], None], scheme: str = "https") -> Generator[Served]:
    """A server on loopback that handles each connection on a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    served = Served(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5.0)
            handle(connection, served)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            served.connections += 1
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield served
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(5.0)
        for thread in threads:
            thread.join(5.0)


def read_request(connection: socket.socket, served: Served) -> bytes:
    """Read the head of a request."""
    head = b""
    while b"\r\n\r\n" not in head:
        received = connection.recv(4096)
        if not received:
            raise OSError("the client has gone")
        head += received
    served.requests += 1
    return head


class Authority:
    """A certificate authority that servers and clients of one test trust."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self._certificate = self._authority.issue_cert("127.0.0.1")

    def client(self, *, certificate: bool = False, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Return a context for clients, which have a certificate or none."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        if certificate:
            self._certificate.configure_cert(context)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    def server(self, *, wants_certificate: bool = False) -> ssl.SSLContext:
        """Return a context for servers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._certificate.configure_cert(context)
        if wants_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            self._authority.configure_trust(context)
        return context


def answering(
    context: ssl.SSLContext, before: bytes = GOOD, after: bytes = b""
) -> Callable[[socket.socket, Served], None]:
    """Answer each request by some bytes over TLS, and then some that are sent as they are.

    After a failed handshake, what the client has sent is read, so that its end of the connection gets the alert.
    """

    def handle(connection: socket.socket, served: Served) -> None:
        with (
            context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as encrypted,
            socket.socket(fileno=socket.dup(encrypted.fileno())) as raw,
        ):
            try:
                encrypted.do_handshake()
            except ssl.SSLError:
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(4096):
                    pass
                return
            read_request(encrypted, served)
            encrypted.sendall(before)
            raw.sendall(after)
            raw.settimeout(0.2)
            raw.recv(4096)

    return handle


def garbling(connection: socket.socket, served: Served) -> None:
    """Answer the handshake by what is no TLS."""
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def refusing(status: str) -> Callable[[socket.socket, Served], None]:
    """A proxy that answers each CONNECT like that."""

    def handle(connection: socket.socket, served: Served) -> None:
        read_request(connection, served)
        connection.sendall(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())

    return handle
