"""Simulated worlds in which the truth is known."""
