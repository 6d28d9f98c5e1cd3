"""Re-ranking: from scored candidates to the list that is shown."""
