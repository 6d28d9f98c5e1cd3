"""The request path: a cascade of fitted components, with budgets, a result cache and traces."""
