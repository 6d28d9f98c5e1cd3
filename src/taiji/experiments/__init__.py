"""Comparisons of rankers and policies: studies, uplift ladder, A/B tests, off-policy estimates, replay."""
