"""Mechanisms, one module each, found by module name."""
