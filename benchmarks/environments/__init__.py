"""Environments of the alignment benchmark, from closed forms to recommendation data."""
