"""Features from answers: product quantiser, look-alike users, the point-in-time feature table and its join."""
