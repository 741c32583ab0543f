"""What holds for every test; the rules themselves are in tests/guards."""

# The guards come first: they replace the functions that sleep before anybody can take a reference to them.
pytest_plugins = [
    "tests.guards.sleep_guard",
    "tests.guards.skip_guard",
    "pytester",
    "tests.support.logs",
    "tests.support.threads",
    "resilience.pytest_plugin",
]
