"""The OpenAPI description of the API, generated from the types that validate requests."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Annotated, Any, Literal

from tinygrad_chat import __version__
from tinygrad_chat.schema import Bounds
from tinygrad_chat.serving import requests

Json = dict[str, Any]

READ = {
    "/health": "whether the server is up",
    "/metrics": "metrics in Prometheus's text format",
    "/v1/models": "the model",
    "/tokenizer_info": "the model's tokenizer",
    "/openapi.json": "this description",
}
ASKED = {
    "/v1/chat/completions": (requests.ChatRequest, "answer a chat"),
    "/v1/completions": (requests.CompletionRequest, "continue a text"),
    "/v1/look": (requests.LookRequest, "each token's log-probability and alternatives, and attention"),
    "/tokenize": (requests.TokenizeRequest, "the tokens of a text or of a chat"),
    "/detokenize": (requests.DetokenizeRequest, "the text of tokens"),
}
REFUSALS = {
    "400": "the request cannot be answered, and the error says why",
    "401": "the server's key is missing",
    "403": "a page of another origin, or another machine's name",
    "404": "no such model",
    "408": "the body arrived too slowly",
    "413": "the body is too long",
    "429": "too many requests",
    "500": "internal server error",
    "503": "not enough memory",
    "504": "the answer took too long",
}


def description() -> Json:
    """Return the OpenAPI 3.1 document."""
    schemas: dict[str, Json] = {"Error": _ERROR}
    paths: Json = {path: {"get": _operation(purpose, path)} for path, purpose in READ.items()}
    for path, (kind, purpose) in ASKED.items():
        body = {"required": True, "content": {"application/json": {"schema": _schema(kind, schemas)}}}
        paths[path] = {"post": {**_operation(purpose, path), "requestBody": body}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tinygrad_chat",
            "version": __version__,
            "description": "OpenAI's API for a model of your own",
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def _operation(purpose: str, path: str) -> Json:
    kinds = ["text/plain"] if path == "/metrics" else ["application/json"]
    kinds += ["text/event-stream"] if path.startswith("/v1/") and path.endswith("completions") else []
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refusals = {status: {"description": why, "content": error} for status, why in REFUSALS.items()}
    return {
        "summary": purpose,
        "responses": {"200": {"description": purpose, "content": {kind: {} for kind in kinds}}, **refusals},
    }


def _schema(kind: Any, schemas: dict[str, Json]) -> Json:
    """Return the JSON schema of a type that `schema.py` checks; those of dataclasses are added to `schemas`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if origin is Annotated:
        bounds = next(each for each in arguments if isinstance(each, Bounds))
        limits = {"minimum": bounds.minimum, "maximum": bounds.maximum}
        return {**_schema(arguments[0], schemas), **{key: value for key, value in limits.items() if value is not None}}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema(each, schemas) for each in arguments]}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], schemas)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], schemas)}
    if dataclasses.is_dataclass(kind):
        return _reference(kind, schemas)
    return {"type": _NAMES[kind]}


_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", types.NoneType: "null"}


def _reference(kind: Any, schemas: dict[str, Json]) -> Json:
    if kind.__name__ not in schemas:
        schemas[kind.__name__] = {}  # so that a type may contain itself
        hints = typing.get_type_hints(kind, include_extras=True)
        properties, required = {}, []
        for each in dataclasses.fields(kind):
            if "harmless" in each.metadata:
                continue
            about = each.metadata.get("about")
            properties[each.name] = {**_schema(hints[each.name], schemas), **({"description": about} if about else {})}
            if not each.metadata.get("optional"):
                required.append(each.name)
        schemas[kind.__name__] = {"type": "object", "properties": properties, "required": required}
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
