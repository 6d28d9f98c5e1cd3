"""Item codes (semantic ids): vectors become a few small numbers, and back."""
