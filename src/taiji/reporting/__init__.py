"""What a run found, for people: summary, charts, cards, report."""
