"""The page ``/docs``: the OpenAPI description as plain HTML, without scripts or resources from other hosts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from taiji.core.web_guard import content_policy

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}"
    "h2{margin-top:2.5rem;border-top:1px solid #ccc;padding-top:1rem}"
    "code,pre{font:14px/1.4 ui-monospace,monospace}pre{background:#f4f4f4;padding:.75rem;overflow-x:auto}"
    "td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0}"
)


def documentation(description: Mapping[str, Any]) -> tuple[str, str]:
    """Return the page of an OpenAPI description, and the Content-Security-Policy with which it is served."""
    about = description["info"]
    title = f"{escape(about['title'])} {escape(about['version'])}"
    parts = [f"<h1>{title}</h1>", f"<p>{escape(about.get('summary', ''))}</p>"]
    parts.append("<p>Machine-readable version: <a href='openapi.json'>openapi.json</a>.</p>")
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts += _operation(method.upper(), path, operation)
    parts.append("<h2>Schemas</h2>")
    for name, schema in sorted(description.get("components", {}).get("schemas", {}).items()):
        parts.append(f"<h3 id='{escape(name)}'>{escape(name)}</h3><pre>{escape(json.dumps(schema, indent=2))}</pre>")
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{title}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return page, content_policy(style_src=f"'sha256-{digest}'")


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{escape(method)} {escape(path)}</code></h2><p>{escape(operation.get('summary', ''))}</p>"
    if text := operation.get("description"):
        yield f"<p>{escape(text)}</p>"
    for parameter in operation.get("parameters", ()):
        needed = "required" if parameter.get("required") else "optional"
        yield f"<p><code>{escape(parameter['name'])}</code> ({escape(parameter['in'])}, {needed}) {escape(parameter.get('description', ''))}</p>"
    if body := operation.get("requestBody"):
        yield f"<p>Body: {_schemas(body['content'])}</p>"
    rows = (
        f"<tr><td>{escape(str(status))}</td><td>{escape(answer.get('description', ''))}</td><td>{_schemas(answer.get('content', {}))}</td></tr>"
        for status, answer in sorted(operation.get("responses", {}).items())
    )
    yield f"<table><tr><th>Status</th><th>Meaning</th><th>Response</th></tr>{''.join(rows)}</table>"


def _schemas(content: Mapping[str, Any]) -> str:
    """Return HTML with a link to the schema of each media type of a body; the media type itself if it has no
    schema."""
    found = []
    for kind, body in content.items():
        name = str(body.get("schema", {}).get("$ref", "")).rpartition("/")[2]
        found.append(f"<a href='#{escape(name)}'>{escape(name)}</a>" if name else f"<code>{escape(kind)}</code>")
    return ", ".join(found)
