"""Inspect a folder of unfamiliar files: collect facts about columns, find keys between files, and propose a mapping
with reasons."""
