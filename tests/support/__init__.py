"""What several tests need: fixtures, scenarios, and the slack that times are given."""
