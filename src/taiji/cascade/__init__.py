"""The request path: fitted components composed, with budgets, a result cache and traces."""
