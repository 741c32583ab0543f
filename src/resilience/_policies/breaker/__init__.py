"""The circuit breaker: its decisions, its states, its settings, the window that it counts in."""
