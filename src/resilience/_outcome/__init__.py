"""How calls end: failures, allowlists of failures, endings."""
