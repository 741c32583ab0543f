"""The cooldown: policy, and the pause that calls wait for."""
