"""The operations of `/api/v1` that raw ASGI applications answer, for the description."""

from __future__ import annotations

from typing import Any

_PROBLEM = {
    "application/problem+json": {
        "schema": {
            "type": "object",
            "required": ["type", "title", "status", "code", "detail"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "code": {"type": "string"},
                "detail": {"type": "string"},
                "hint": {"type": "string"},
            },
        }
    }
}
_DEPLOYMENT = {"application/json": {"schema": {"$ref": "#/components/schemas/DeploymentOut"}}}
_APP = {"name": "app", "in": "path", "required": True, "schema": {"type": "string"}}
_WAIT = {
    "name": "wait",
    "in": "query",
    "description": "Seconds to wait for the end of the deployment, at most 600.",
    "schema": {"type": "number", "minimum": 0, "maximum": 600, "default": 0},
}
_KEY = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 100}}
_SECURITY: list[dict[str, list[str]]] = [{"ApiAuth": []}]


def _answers() -> dict[str, Any]:
    return {
        "201": {"description": "Live: the next request gets the new release.", "content": _DEPLOYMENT},
        "202": {"description": "Under way; see Location.", "content": _DEPLOYMENT},
        "401": {"description": "No token or session.", "content": _PROBLEM},
        "403": {"description": "The role or the token's scopes do not allow it.", "content": _PROBLEM},
        "404": {"description": "No such app, for the asker.", "content": _PROBLEM},
        "409": {"description": "The app is being deleted.", "content": _PROBLEM},
        "422": {"description": "Refused, or failed with its reason and last log lines; the old release serves.", "content": _PROBLEM},
        "504": {"description": "`wait` ran out (`wait_elapsed`); see Location.", "content": _PROBLEM},
    }  # fmt: skip


def _deploy() -> dict[str, Any]:
    by_name = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "description": "Digest or reference of an image of this app."}},
    }
    answers = _answers() | {"413": {"description": "Over the team's quota.", "content": _PROBLEM}}
    archive = {"schema": {"type": "string", "format": "binary"}}
    return {
        "operationId": "deploy",
        "summary": "Deploy an image archive, or an image that is here already",
        "description": "The archive (docker save or OCI layout; plain, gzip or zstd) is the body, chunked or with a length.",
        "tags": ["deployments"],
        "parameters": [_APP, _WAIT, _KEY],
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": archive, "application/json": {"schema": by_name}},
        },
        "responses": answers,
        "security": _SECURITY,
    }


def _rollback() -> dict[str, Any]:
    body = {"type": "object", "properties": {"release": {"type": ["integer", "null"], "minimum": 1}}}
    return {
        "operationId": "rollback",
        "summary": "Deploy an older release",
        "description": "Without `release`: the newest one before the present that was live.",
        "tags": ["deployments"],
        "parameters": [_APP, _WAIT],
        "requestBody": {"required": False, "content": {"application/json": {"schema": body}}},
        "responses": _answers(),
        "security": _SECURITY,
    }


def _known() -> dict[str, Any]:
    digests = {"type": "array", "items": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}, "maxItems": 1000}
    question = {
        "type": "object",
        "required": ["app", "digests"],
        "properties": {"app": {"type": "string"}, "digests": digests},
    }
    blob = {"type": "object", "properties": {"digest": {"type": "string"}, "size_bytes": {"type": "integer"}}}
    found = {"type": "object", "required": ["known"], "properties": {"known": {"type": "array", "items": blob}}}
    names = {
        "401": "No token or session.",
        "403": "The role does not allow it.",
        "404": "No such app, for the asker.",
        "413": "The question is too large.",
        "422": "No such question, a digest that is none, or too many.",
    }
    return {
        "operationId": "known_layers",
        "summary": "Which blobs the app's team has, and need not be sent",
        "description": "An archive may leave these out for a day. Of other teams' blobs nothing is said.",
        "tags": ["deployments"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": question}}},
        "responses": {
            "200": {"description": "Those that are here.", "content": {"application/json": {"schema": found}}},
            **{code: {"description": words, "content": _PROBLEM} for code, words in names.items()},
        },
        "security": _SECURITY,
    }


def describe(schema: Any) -> Any:
    """Add the raw operations to ninja's description."""
    paths = schema["paths"]
    prefix = next((path.split("/apps")[0] for path in paths if "/apps" in path), "/api/v1")
    paths.setdefault(f"{prefix}/apps/{{app}}/deployments", {})["post"] = _deploy()
    paths.setdefault(f"{prefix}/apps/{{app}}/rollback", {})["post"] = _rollback()
    paths[f"{prefix}/uploads/known"] = {"post": _known()}
    return schema
