"""Comparisons: studies, A/B tests, off-policy estimates, replay."""
