"""Bodies of responses that have arrived together with their head, which ends the call.

httpcore reads what the network has, so the body of a small response is often in memory when its head has been read. To
read it waits for nothing then, so it needs no deadline; and the call has ended, so that its connection and its permits
need not be kept until the caller reads the body.
"""

from __future__ import annotations

from typing import Any


def take_body(response: Any, bytes_class: type[Any]) -> None:
    """Read a body that has arrived, which frees its connection, and put it back as one in memory.

    Args:
        response: the response.
        bytes_class: the class of the bodies in memory of its module.
    """
    stream = response.stream
    chunks = list(stream)
    stream.close()
    response.stream = bytes_class(b"".join(chunks))


async def atake_body(response: Any, bytes_class: type[Any]) -> None:
    """Do as `take_body`, for async clients."""
    stream = response.stream
    chunks = [chunk async for chunk in stream]
    await stream.aclose()
    response.stream = bytes_class(b"".join(chunks))
