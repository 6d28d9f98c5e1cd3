"""Retrievers, which choose candidates for a request from the whole catalogue."""
