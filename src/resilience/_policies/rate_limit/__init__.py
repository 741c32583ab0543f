"""The rate limit."""
