"""Item codes (semantic ids): vectors encoded as a few small integers, and decoded."""
