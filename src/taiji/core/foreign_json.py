"""Parse JSON from untrusted sources: requests, answers of servers, files."""

from __future__ import annotations

import json
from typing import Any


def parsed(text: str | bytes, **options: Any) -> Any:
    """Parse a JSON text.

    Args:
        text: text, or bytes in UTF-8.
        options: options for :func:`json.loads`.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
