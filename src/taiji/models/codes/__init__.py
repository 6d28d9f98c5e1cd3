"""Item codes (semantic ids): coders that encode vectors as a few small integers, and decode them."""
