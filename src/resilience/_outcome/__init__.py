"""Outcomes of calls: failures, allowlists that list them, and endings."""
