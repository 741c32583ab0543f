"""What a result depends on besides the code: the commit, the interpreter, the packages, the processor."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

from benchmarks.peers import MODULES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def git(*arguments: str) -> str:
    try:
        answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def commit() -> str:
    """The commit, and whether the files differ from it; those results themselves do not count."""
    number = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", ".", f":!{RESULTS.relative_to(ROOT)}")
    return f"{number}{', with uncommitted changes' if changed else ''}" if number else "unknown"


def processor() -> str:
    """The model and the number of cores."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    model = found.group(1).strip() if found else platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def versions() -> dict[str, str]:
    """The versions of all packages that take part; peers that are not there are said to be missing."""
    return {package: version(package) for package in ("anyio", "grpcio", "trio", *MODULES)}


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
