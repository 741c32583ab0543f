"""Run a function in a forked child."""

import os
import warnings
from collections.abc import Callable


def in_child(answer: Callable[[], str]) -> str:
    """Return what `answer` returns in a forked child; an empty string if it raised there."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # From 3.12 on, a fork beside running threads is deprecated; that it works all the same is the test.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, answer().encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return said if os.waitstatus_to_exitcode(status) == 0 else ""
