"""The retry policy and its settings."""
