"""The state of a call: the call itself, its settlement, its ticket in a queue, its retry marks, the retry budget."""
