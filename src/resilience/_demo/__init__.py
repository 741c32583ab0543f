"""The demo, `python -m resilience demo`: two services with a bad day, and three ways to call them."""
