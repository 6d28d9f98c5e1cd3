"""GPU acceptance: what of taiji runs, and how fast, on one NVIDIA GPU that has no network."""
