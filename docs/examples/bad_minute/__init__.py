"""The demo's parts: two services with a bad minute scripted into them, the clients, and what is told about them."""
