"""Targets are shown without credentials."""

from __future__ import annotations

import pytest

from resilience._util.redaction import without_credentials


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("example.org", "example.org"),
        ("example.org:443", "example.org:443"),
        ("https://ada:secret@example.org/path?token=1#top", "https://example.org/path"),
        ("ada:secret@example.org", "example.org"),
        ("", ""),
    ],
)
def test_credentials_are_left_out(target: str, shown: str) -> None:
    assert without_credentials(target) == shown
