"""Fusions, which combine the predictions of a ranker into one score per candidate."""
