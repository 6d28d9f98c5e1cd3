"""Features from the language model's answers: look-alike users, intents, and the point-in-time feature table with its
as-of join."""
