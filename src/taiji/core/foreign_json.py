"""JSON that somebody else wrote: a request, a server's answer, a file."""

from __future__ import annotations

import json
import re
from typing import Any

_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPED_BYTES = re.compile(rb"\\u[dD][89a-fA-F]")
"""Escapes that stand for half a character, and for nothing without the other half."""


def parsed(text: str | bytes, **options: Any) -> Any:
    """Return the value of a JSON text.

    Args:
        text: UTF-8 if bytes. options: options for :func:`json.loads`.

    Raises:
        ValueError: the text is not JSON, is nested too deep to be read, or holds halves of characters, which no file and no answer can hold.
    """
    try:
        value = json.loads(text, **options)
        if _ESCAPED.search(text) if isinstance(text, str) else _ESCAPED_BYTES.search(text):
            json.dumps(value, ensure_ascii=False, default=str).encode()
        return value
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half a character") from None
