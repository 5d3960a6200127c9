"""The OpenAPI document, made from the parameters that the routes parse."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from movielens_api.columns import UINT32_MAX
from movielens_api.parameters import END_DATE, LIMIT, OF_MOVIES, OF_RATINGS, OFFSET, START_DATE, Parameter

Schema = dict[str, Any]

ENDPOINTS = {
    "/": "what this service is",
    "/ratings": "the ratings of an interval, by timestamp, then userId, then movieId",
    "/movies": "the movies, by movieId",
    "/healthz": "whether the service answers; needs no login",
    "/openapi.json": "this interface, described; needs no login",
}

DESCRIPTIONS = {
    START_DATE.name: "First day of the interval, from 00:00 UTC. Without it the interval starts with the data.",
    END_DATE.name: "First day after the interval. Not before start_date; the same day gives no rows.",
    OFFSET.name: "How many rows of the interval to skip. Past the end, the result is empty.",
    LIMIT.name: "How many rows to give at most.",
}

FAULTS = {
    "429": "Only in the fault mode: try again after the seconds of Retry-After.",
    "500": "A fault of the server: one that nobody foresaw, or one of the fault mode.",
}


def openapi_document() -> Schema:
    """OpenAPI 3.1. What a query string may hold is strict: any other parameter, or one given twice, is a 400.

    One rule has no form in OpenAPI and stands in a description: start_date is not after end_date.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "movielens-api",
            "version": version("movielens-api"),
            "description": (
                "A mock of the MovieLens ratings service. Parameters other than those listed are refused with 400, "
                "on every path. In the fault mode (off unless the server was started with a fault rate) /ratings "
                "and /movies may answer 429 or 500, answer late, or close the connection half way through a body."
            ),
        },
        "paths": {
            "/": {"get": _operation("/", _reference("Index"))},
            "/ratings": {"get": _operation("/ratings", _reference("RatingsPage"), OF_RATINGS)},
            "/movies": {"get": _operation("/movies", _reference("MoviesPage"), OF_MOVIES)},
            "/healthz": {"get": _operation("/healthz", _object(status={"const": "ok"}), needs_login=False)},
            "/openapi.json": {"get": _operation("/openapi.json", {"type": "object"}, needs_login=False)},
        },
        "components": {
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
            "schemas": {
                "Index": _object(
                    name={"type": "string"},
                    description={"type": "string"},
                    data={"type": "object"},
                    endpoints={"type": "object", "additionalProperties": {"type": "string"}},
                ),
                "Rating": _object(
                    userId=_integer(0, UINT32_MAX),
                    movieId=_integer(0, UINT32_MAX),
                    rating={"type": "number", "minimum": 0.5, "maximum": 5.0, "multipleOf": 0.5},
                    timestamp={**_integer(0, UINT32_MAX), "description": "UTC epoch seconds"},
                ),
                "Movie": _object(
                    movieId=_integer(0, UINT32_MAX),
                    title={"type": "string", "description": "with the year in brackets at the end"},
                    genres={"type": "string", "description": "separated by |"},
                ),
                "RatingsPage": _page("Rating"),
                "MoviesPage": _page("Movie"),
                "Error": _object(error={"type": "string"}),
                "BadParameter": _object(
                    error={"type": "string"}, parameter={"type": "string"}, allowed={"type": "string"}
                ),
            },
        },
    }


def _operation(path: str, schema: Schema, parameters: tuple[Parameter, ...] = (), needs_login: bool = True) -> Schema:
    responses = {
        "200": _response("Done.", schema),
        "400": _response("A parameter is not allowed; the body says which.", _reference("BadParameter")),
        "414": {
            "description": "The request line is longer than 8190 bytes.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
        "500": _response(FAULTS["500"], _reference("Error")),
    }
    if needs_login:
        responses["401"] = _response(
            "The login is missing or wrong.", _reference("Error"), {"WWW-Authenticate": {"type": "string"}}
        )
    if parameters:
        responses["429"] = _response(FAULTS["429"], _reference("Error"), {"Retry-After": _integer(0, 60)})
    return {
        "summary": ENDPOINTS[path],
        "operationId": path.strip("/").removesuffix(".json") or "index",
        "security": [{"basic": []}] if needs_login else [],
        "parameters": [
            {
                "name": parameter.name,
                "in": "query",
                "description": DESCRIPTIONS[parameter.name],
                "schema": parameter.schema,
            }
            for parameter in parameters
        ],
        "responses": dict(sorted(responses.items())),
    }


def _response(description: str, schema: Schema, headers: dict[str, Schema] | None = None) -> Schema:
    response: Schema = {"description": description, "content": {"application/json": {"schema": schema}}}
    if headers:
        response["headers"] = {name: {"required": True, "schema": schema} for name, schema in headers.items()}
    return response


def _page(row: str) -> Schema:
    return _object(
        result={"type": "array", "items": _reference(row), "maxItems": LIMIT.maximum},
        offset=_integer(OFFSET.minimum, OFFSET.maximum),
        limit=_integer(LIMIT.minimum, LIMIT.maximum),
        total=_integer(0, OFFSET.maximum),
    )


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _integer(minimum: int, maximum: int) -> Schema:
    return {"type": "integer", "minimum": minimum, "maximum": maximum}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
