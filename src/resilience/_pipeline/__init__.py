"""Pipelines: composition of policies, calls in flight, blocks guarded by hand, checks of a configuration."""
