"""The command line: `python -m resilience demo` shows the library at work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from resilience._util.extras import import_first

USAGE = """\
usage: python -m resilience demo [options]    two services with a bad day, called in three ways; --help tells more
       python -m resilience --version
"""
NEEDED = ("rich", "uvicorn", "httpx", "grpc", "prometheus_client")
"""What the extra `demo` installs."""


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit code: 2 for wrong usage, or if the extra is not installed."""
    match arguments:
        case ["demo", *rest]:
            return _demo(rest)
        case ["--version" | "-V"]:
            print(f"resilience {_version()}")
            return 0
        case ["--help" | "-h"]:
            print(USAGE, end="")
            return 0
        case _:
            print(USAGE, end="", file=sys.stderr)
            return 2


def _demo(arguments: Sequence[str]) -> int:
    try:
        for package in NEEDED:
            import_first(package, extra="demo")
    except ModuleNotFoundError as error:
        print(f"python -m resilience demo: {error}", file=sys.stderr)
        return 2
    from resilience._demo import command

    return command.main(arguments)


def _version() -> str:
    try:
        return version("resilience-client")
    except PackageNotFoundError:  # on the path without being installed
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
