"""Parse JSON from untrusted sources: requests, server responses, files."""

from __future__ import annotations

import json
import re
from typing import Any

_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPED_BYTES = re.compile(rb"\\u[dD][89a-fA-F]")
"""Pattern of the escapes of surrogates. A surrogate is half of a character, and invalid without the other half."""


def parsed(text: str | bytes, **options: Any) -> Any:
    """Parse a JSON text.

    Args:
        text: text, or bytes in UTF-8.
        options: options for :func:`json.loads`.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, or holds half of a surrogate pair, which cannot be
            written as UTF-8.
    """
    try:
        value = json.loads(text, **options)
        if _ESCAPED.search(text) if isinstance(text, str) else _ESCAPED_BYTES.search(text):
            json.dumps(value, ensure_ascii=False, default=str).encode()
        return value
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it contains half of a surrogate pair") from None
