"""The drivers: for each shape of policy, one for plain functions and one for coroutine functions."""
