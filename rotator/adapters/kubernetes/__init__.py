"""Kubernetes: the API server as a place to publish tokens and to keep states. Loaded only where it is used."""
