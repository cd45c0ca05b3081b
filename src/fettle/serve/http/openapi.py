"""Our own description of the REST interface, in OpenAPI 3.1: made from the routes themselves.

Specification: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

from fettle.serve.http.routes import ROUTES, Route
from fettle.serve.protocol.datatypes import BINARY_ONLY, NUMPY
from fettle.serve.rollout.decisions import KINDS

_ERRORS = {
    "400": "Malformed, or not what the model takes",
    "401": "A token is missing or wrong",
    "403": "Switched off on this server",
    "404": "No such path, model or version",
    "405": "The path answers other methods",
    "408": "The body didn't come in time",
    "409": "Not in the state that this needs",
    "413": "A body or a tensor is past its limit",
    "415": "A content encoding that isn't read here",
    "429": "As many requests are held as may be; see `Retry-After`",
    "431": "Headers past their limit",
    "500": "The engine failed",
    "503": "Not ready",
    "504": "The deadline passed before the answer came",
}
_PARAMETERS = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_TEXT = {"type": "string"}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_DATATYPE = {"type": "string", "enum": sorted(NUMPY)}
_IN_JSON = {"type": "string", "enum": sorted(set(NUMPY) - BINARY_ONLY)}
_SCHEMAS: dict[str, Any] = {
    "Error": {"type": "object", "required": ["error"], "properties": {"error": _TEXT}},
    "Tensor": {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": _TEXT,
            "datatype": _IN_JSON,
            "shape": _SHAPE,
            "data": {"type": "array", "description": "in the shape's nesting, or flat"},
            "parameters": _PARAMETERS,
        },
    },
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": _TEXT,
            "inputs": {
                "type": "array",
                "minItems": 1,
                "items": {"$ref": "#/components/schemas/Tensor"},
            },
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": _TEXT, "parameters": _PARAMETERS},
                },
            },
            "parameters": _PARAMETERS,
        },
    },
    "InferResponse": {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "id": _TEXT,
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "datatype", "shape"],
                    "properties": {"name": _TEXT, "datatype": _DATATYPE, "shape": _SHAPE},
                },
            },
        },
    },
    "Feedback": {
        "type": "object",
        "required": ["id", "label"],
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": 256},
            "label": {"type": ["string", "number"]},
            "time_ns": {"type": "integer", "minimum": 0},
        },
    },
    "Reason": {
        "type": "object",
        "properties": {"reason": {"type": "string", "maxLength": 500}},
    },
    "Bound": {
        "type": "object",
        "description": "What is known of a measure: counts, and an interval that holds at any time",
        "properties": {
            "hits": {"type": "number"},
            "n": {"type": "integer"},
            "estimate": {"type": ["number", "null"]},
            "low": {"type": "number"},
            "high": {"type": "number"},
            "limit": {"type": "number"},
            "side": {"type": "string", "enum": ["below", "above", "open"]},
            "confidence": {"type": "number"},
        },
    },
    "Decision": {
        "type": "object",
        "required": ["decision", "model", "reason", "before", "after", "step", "time"],
        "properties": {
            "decision": {"type": "string", "enum": list(KINDS)},
            "model": _TEXT,
            "reason": _TEXT,
            "primary": _TEXT,
            "canary": _TEXT,
            "before": _SHARE,
            "after": _SHARE,
            "step": {"type": "integer", "minimum": 0},
            "evidence": {
                "type": "object",
                "additionalProperties": {"$ref": "#/components/schemas/Bound"},
            },
            "time": {"type": "string", "format": "date-time"},
        },
    },
    "Rollout": {
        "type": "object",
        "properties": {
            "shadow": {"type": "object"},
            "ab": {"type": "object"},
            "canary": {"type": "object"},
            "decisions": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/Decision"},
            },
        },
    },
    "Asked": {
        "type": "object",
        "properties": {"ready": {"type": "boolean"}, "parameters": {"type": "object"}},
    },
}
_BODIES = {
    "infer": "InferRequest",
    "feedback": "Feedback",
    "promote": "Reason",
    "rollback": "Reason",
}
_EXPECTED = ("infer", "feedback")  # the others may come without a body
_ANSWERS = {
    "infer": "InferResponse",
    "rollout": "Rollout",
    "promote": "Decision",
    "rollback": "Decision",
}


def describe() -> dict[str, Any]:
    """Return the description as JSON holds it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fettle serve",
            "version": version_of("fettle"),
            "description": "The Open Inference Protocol, version 2, with Triton's extensions.",
        },
        "paths": {
            path: {method.lower(): _operation(path, route) for method, route in methods.items()}
            for path, methods in ROUTES.items()
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(path: str, route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": "_".join([route.handler, *(["version"] if "{version}" in path else [])])
        + ("_all" if path == "/v2/models/stats" else ""),
        "summary": route.summary,
        "responses": _responses(route),
    }
    named = [name for name in ("name", "version") if f"{{{name}}}" in path]
    if named:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in named
        ]
    if route.audience != "anyone":
        operation["security"] = [{}, {"token": []}]
    if route.body:
        operation["requestBody"] = _request(route)
    return operation


def _request(route: Route) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _of(_BODIES.get(route.handler))}}
    if route.handler == "infer":
        content["application/octet-stream"] = {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": "JSON of `Inference-Header-Content-Length` bytes, then tensors",
            }
        }
    return {"required": route.handler in _EXPECTED, "content": content}


_KINDS = {"metrics": "text/plain", "dashboard": "text/html"}


def _responses(route: Route) -> dict[str, Any]:
    kind = _KINDS.get(route.handler, "application/json")
    schema = _of(_ANSWERS[route.handler]) if route.handler in _ANSWERS else {}
    content = {kind: {"schema": schema}}
    if route.handler == "infer":
        content["application/octet-stream"] = {"schema": {}}
    error = {"application/json": {"schema": _of("Error")}}
    refusals = {status: {"description": text, "content": error} for status, text in _ERRORS.items()}
    return {"200": {"description": "Done", "content": content}, **refusals}


def _of(name: str | None) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name or 'Asked'}"}
