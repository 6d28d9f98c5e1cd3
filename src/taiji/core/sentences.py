"""Format parts of sentences for messages, pages and prompts."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str]) -> str:
    """Return ``a, b and c``; an empty text for no names."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
