"""A service of quotes over HTTP, in a process of its own: `python -m tests.support.quotes_service` prints its port.

It answers the first request for each path by 503, as a busy service does, and the next ones by a price.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from typing import Any

import uvicorn

SEEN = "/seen"
"""The path that tells how often each other path was requested."""
UNKNOWN = "/quotes/NONE"
"""A path that is answered by 404."""
PRICE = 42.0
_seen: Counter[str] = Counter()


async def app(scope: Any, receive: Any, send: Any) -> None:
    path: str = scope["path"]
    if path == SEEN:
        status, body = 200, dict[str, float](_seen)
    else:
        _seen[path] += 1
        status = 404 if path == UNKNOWN else 503 if _seen[path] == 1 else 200
        body = {"price": PRICE}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_level="critical", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
