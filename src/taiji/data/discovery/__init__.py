"""Inspect a folder of unfamiliar files: describe their columns, find keys between files, and propose a mapping with
reasons."""
