"""The bodies of requests: which can be sent again, and how.

A body of httpx that is no bytes wraps what the caller gave: a file, an iterable, or an async one. httpx reads it from
where it stands, so that a second time a file would be sent empty.
"""

from __future__ import annotations

from typing import Any, Final

from resilience.httpx._modules import is_a, load_httpx_module, module_name_of
from resilience.httpx._privates import request_content_of, was_read

START: Final = "_resilience_start"
"""The attribute of a body in which the position is kept from which its file was first read."""
_ONE_SHOT: Final = ("__next__", "__anext__", "aread", "close", "aclose")
"""What an iterable has that can be read once: it is its own iterator, or a resource."""


def is_bytes(stream: Any) -> bool:
    """Return whether a body is in memory as a whole."""
    return type(stream).__name__ == "ByteStream" and is_a(stream, "ByteStream")


def is_replayable(stream: Any) -> bool:
    """Return whether a body can be sent again, or has not been read yet.

    That is so for bytes, seekable files, and iterables that are not their own iterators; for those of multipart that
    are made of such files, which httpx rewinds to their beginning.
    """
    if is_bytes(stream):
        return True
    read = was_read(stream)
    if read is not None:
        return not read or START in _attributes_of(stream) or _is_iterable(request_content_of(stream))
    parts = _parts_of(stream)
    return parts is not None and all(_is_seekable(part) for part in parts)


def is_shareable(stream: Any) -> bool:
    """Return whether two attempts can read a body at the same time: one of a file has one position for both."""
    if is_bytes(stream):
        return True
    if was_read(stream) is not None:
        return _is_iterable(request_content_of(stream))
    parts = _parts_of(stream)
    return parts is not None and all(isinstance(part, str | bytes) for part in parts)


def prepare(stream: Any) -> None:
    """Prepare a body that is not in memory to be sent, from where it was sent first.

    Raises:
        httpx.StreamConsumed: it was read before, such as by the request that was redirected, and cannot be read again.
    """
    attributes = _attributes_of(stream)
    consumed = was_read(stream)
    content = request_content_of(stream)
    if consumed is False and hasattr(content, "read") and _is_seekable(content):
        try:
            attributes[START] = content.tell()
        except (OSError, ValueError):  # the file is closed, or says that it is seekable and is not
            return
    elif consumed and START in attributes:
        content.seek(attributes[START])
    elif consumed and not _is_iterable(content):
        raise load_httpx_module(module_name_of(stream) or "httpx").module.StreamConsumed()


def _parts_of(stream: Any) -> list[Any] | None:
    """Return the contents of the fields of a multipart body; None for a body of another kind."""
    fields: Any = getattr(stream, "fields", None)
    return [getattr(field, "file", b"") for field in fields] if issubclass(type(fields), list) else None


def _attributes_of(stream: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = getattr(stream, "__dict__", {})
    return attributes


def _is_iterable(content: Any) -> bool:
    """Return whether each iteration over what the caller gave begins anew, as that of a list does."""
    return not hasattr(content, "read") and not any(hasattr(content, name) for name in _ONE_SHOT)


def _is_seekable(part: Any) -> bool:
    """Return whether a file, or a part of a multipart body, can be read again."""
    if isinstance(part, str | bytes):
        return True
    try:
        return bool(part.seekable())
    except Exception:
        return False
