"""Fusion of a ranker's predictions into one score."""
