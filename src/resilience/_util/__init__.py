"""Utilities without dependencies on other packages: clock, locks, finalizers, validation, one-time log messages."""
