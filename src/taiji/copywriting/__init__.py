"""Copywriting: short copy for items, generated with controls, checked against its evidence, and selected by a reward model."""
