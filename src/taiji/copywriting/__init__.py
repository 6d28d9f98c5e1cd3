"""Copywriting: short copy about items, generated under control, checked against its evidence, selected by a reward model."""
