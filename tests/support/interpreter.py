"""Run code in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys


def run_python(code: str, **variables: str) -> str:
    """Return what the code writes, with these environment variables set besides those that are set anyway."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout + done.stderr
