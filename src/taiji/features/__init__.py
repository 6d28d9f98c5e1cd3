"""Features from answers: product quantiser, look-alike users, and the point-in-time feature table with its join."""
