"""One call on its way: the call itself, its settlement, its place in a queue, its marks, its budget."""
