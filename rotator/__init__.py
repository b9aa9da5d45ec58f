"""rotator keeps OAuth 2.0 tokens fresh: it refreshes, saves, and only then publishes."""
