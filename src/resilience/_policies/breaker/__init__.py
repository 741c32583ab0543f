"""The circuit breaker: policy, states, settings, and the window in which it counts calls."""
