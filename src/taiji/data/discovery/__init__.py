"""Discovery of what a folder of unfamiliar files holds: facts about columns, keys between files, and a proposed mapping with its reasons."""
