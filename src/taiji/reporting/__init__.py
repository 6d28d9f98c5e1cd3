"""Human-readable results of a run: summary, charts, cards, report."""
