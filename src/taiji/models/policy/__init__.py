"""Policies that look beyond a single request: session policies, cache-aware critics, and expert cloning."""
