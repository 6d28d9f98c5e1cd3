"""Retrievers: from a request to candidates out of the whole catalogue."""
