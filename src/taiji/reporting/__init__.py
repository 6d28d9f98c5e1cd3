"""Results of a run, for people: summary, charts, cards, report."""
