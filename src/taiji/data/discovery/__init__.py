"""Discovery of the contents of a folder of unfamiliar files: facts about columns, keys between files, and a proposed mapping with reasons."""
