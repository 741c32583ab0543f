"""Mutation testing: whether the tests notice changes to the decisions of the policies."""
