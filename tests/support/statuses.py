"""An HTTP server on loopback that answers with a script of statuses, for clients of any package."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StatusServer:
    """Answers with one status of a list after another, the last one again and again.

    Args:
        *statuses: the statuses.
        headers: the headers of all answers.
        body: the body of all answers, as JSON.
    """

    def __init__(self, *statuses: int, headers: Mapping[str, str] | None = None, body: object = None) -> None:
        self.statuses = list(statuses)
        self.headers = headers or {}
        self.body = json.dumps({} if body is None else body).encode()
        self.requests = 0
        self.url = ""
        self._lock = threading.Lock()

    def next_status(self) -> int:
        with self._lock:
            self.requests += 1
            return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


@contextmanager
def answering(*statuses: int, headers: Mapping[str, str] | None = None, body: object = None) -> Iterator[StatusServer]:
    """Run a server for the time of a `with` block."""
    script = StatusServer(*statuses, headers=headers, body=body)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(script.next_status())
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(script.body)))
            for name, value in script.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(script.body)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: Any) -> None:
            """Write nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Write nothing: a client has closed its connection."""

    with Server(("127.0.0.1", 0), Handler) as server:
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()
