"""Stages of the recipes, one per module. Heavy packages are imported when a stage runs."""
