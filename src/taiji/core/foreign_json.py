"""JSON that somebody else wrote: a request, a server's answer, a file."""

from __future__ import annotations

import json
from typing import Any


def parsed(text: str | bytes, **options: Any) -> Any:
    """Return the value of a JSON text.

    Args:
        text: UTF-8 if bytes. options: options for :func:`json.loads`.

    Raises:
        ValueError: the text is not JSON, or is nested too deep to be read.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
