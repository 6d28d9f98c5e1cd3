"""Re-rankers, which turn the scored candidates of a request into the list that is shown."""
