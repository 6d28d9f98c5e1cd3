"""OpenAPI description of bodies and rejections that FastAPI cannot infer, because the routes handle them themselves."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from taiji.serving import schemas
from taiji.serving.gate import needed_scope

REASONS = {
    400: "Not JSON in UTF-8, or nested too deeply",
    401: "No valid API key",
    403: "The key lacks the scope",
    404: "No features yet",
    408: "The body arrived too slowly",
    409: "Conflict with the current state",
    413: "The body is too large",
    415: "Not application/json",
    422: "The request does not match the schema",
    429: "Too many requests",
    503: "Temporarily unavailable; see Retry-After",
}
BODIES: tuple[type[BaseModel], ...] = (
    schemas.EventsIn,
    schemas.UsersIn,
    schemas.RankIn,
    schemas.RecommendIn,
    schemas.ReleaseIn,
    schemas.ActivateIn,
)


def responses(*statuses: int, text: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the documented rejections of a route, including 504, which any route may return.

    Args:
        statuses: HTTP statuses of the rejections, from :data:`REASONS`.
        text: True if the response is plain text.
    """
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": schemas.Problem, "description": REASONS[status]} for status in statuses
    }
    found[504] = {"model": schemas.Problem, "description": "The response took too long"}
    if text:
        found[200] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return found


def takes(model: type[BaseModel], *, idempotent: bool = False) -> dict[str, Any]:
    """Return the description of a request body and, if ``idempotent``, of the header Idempotency-Key."""
    extra: dict[str, Any] = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}},
        }
    }
    if idempotent:
        schema = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"}
        extra["parameters"] = [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": True,
                "schema": schema,
                "description": "Use a new key for each batch, and the same key when you repeat a batch",
            }
        ]
    return extra


def describe(app: FastAPI, *, secured: bool) -> None:
    """Add the schemas of bodies to ``app.openapi()`` and, if there are keys, the scope that each route needs."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        page = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        _, definitions = models_json_schema(
            [(model, "validation") for model in BODIES], ref_template="#/components/schemas/{model}"
        )
        page["components"]["schemas"].update(definitions["$defs"])
        for path, methods in page["paths"].items():
            for method, operation in methods.items():
                for parameter in operation.get("parameters", []):
                    if parameter["in"] == "path":
                        parameter["schema"] = {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 256,
                            "pattern": schemas.ID,
                        }
                scope = needed_scope(method.upper(), path)
                if secured and scope:
                    operation["security"] = [{"key": []}]
                    operation["description"] = f"Needs a key with the scope `{scope}`."
        if secured:
            page["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = page
        return page

    app.openapi = openapi  # type: ignore[method-assign]
