"""Pipelines: composition of policies, calls in flight, guarded blocks, checks of the configuration."""
