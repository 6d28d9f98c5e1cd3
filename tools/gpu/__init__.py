"""Acceptance run on one NVIDIA GPU without a network: which parts of taiji run there, how exactly, and how fast."""
