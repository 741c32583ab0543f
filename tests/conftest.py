"""What holds for every test; the rules themselves are in tests/guards."""

import gc
import signal

# The guards come first: they replace the functions that sleep before anybody can take a reference to them.
pytest_plugins = [
    "tests.guards.sleep_guard",
    "tests.guards.skip_guard",
    "pytester",
    "tests.support.logs",
    "tests.support.threads",
    "resilience.pytest_plugin",
]


def pytest_configure() -> None:
    """Let Ctrl-C through where a shell has started the tests in the background: it has such a process ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Have the collector pass over what the imports have made: many tests collect, and would look at all of it."""
    gc.collect()
    gc.freeze()
