"""The drivers: for each shape of policy, one that calls plain functions and one that awaits coroutines."""
