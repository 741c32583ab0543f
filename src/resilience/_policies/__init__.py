"""The policies, and the shapes that they are made of."""
