"""The OpenAPI document, made from the endpoints and parameters that the application uses."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from movielens_api.columns import GENRES, MOVIE_ID, RATING, TIMESTAMP, TITLE, UINT32_MAX, USER_ID
from movielens_api.endpoints import HEALTHZ, INDEX, MOVIES, OPENAPI, RATINGS, Endpoint
from movielens_api.parameters import END_DATE, LIMIT, OFFSET, START_DATE

Schema = dict[str, Any]

DESCRIPTIONS = {
    START_DATE.name: "First day of the interval, from 00:00 UTC. Without it the interval starts with the data.",
    END_DATE.name: "First day after the interval. Not before start_date; the same day gives no rows.",
    OFFSET.name: "How many rows of the interval to skip. Past the end, the result is empty.",
    LIMIT.name: "How many rows to return at most.",
}

FAULTS = {
    "429": "Only in the fault mode: try again after the seconds of Retry-After.",
    "500": "An internal error: an unexpected one, or one of the fault mode.",
}


def openapi_document() -> Schema:
    """Return the document, OpenAPI 3.1. Query strings are strict: any other parameter, or a repeated one, is a 400.

    OpenAPI cannot express one rule, which stands in a description: start_date is not after end_date.
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
            endpoint.path: {"get": _operation(endpoint, schema)}
            for endpoint, schema in (
                (INDEX, _reference("Index")),
                (RATINGS, _reference("RatingsPage")),
                (MOVIES, _reference("MoviesPage")),
                (HEALTHZ, _object({"status": {"const": "ok"}})),
                (OPENAPI, {"type": "object"}),
            )
        },
        "components": {
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
            "schemas": {
                "Index": _object(
                    {
                        "name": {"type": "string"},
                        "description": {"type": "string"},
                        "data": {"type": "object"},
                        "endpoints": {"type": "object", "additionalProperties": {"type": "string"}},
                    }
                ),
                "Rating": _object(
                    {
                        USER_ID: _integer(0, UINT32_MAX),
                        MOVIE_ID: _integer(0, UINT32_MAX),
                        RATING: {"type": "number", "minimum": 0.5, "maximum": 5.0, "multipleOf": 0.5},
                        TIMESTAMP: {**_integer(0, UINT32_MAX), "description": "UTC epoch seconds"},
                    }
                ),
                "Movie": _object(
                    {
                        MOVIE_ID: _integer(0, UINT32_MAX),
                        TITLE: {"type": "string", "description": "with the year in brackets at the end"},
                        GENRES: {"type": "string", "description": "separated by |"},
                    }
                ),
                "RatingsPage": _page("Rating"),
                "MoviesPage": _page("Movie"),
                "Error": _object({"error": {"type": "string"}}),
                "BadParameter": _object(
                    {"error": {"type": "string"}, "parameter": {"type": "string"}, "allowed": {"type": "string"}}
                ),
            },
        },
    }


def _operation(endpoint: Endpoint, schema: Schema) -> Schema:
    responses = {
        "200": _response("Done.", schema),
        "400": _response("A parameter is not allowed; the body says which.", _reference("BadParameter")),
        "414": {
            "description": "The request line is longer than 8190 bytes.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
        "500": _response(FAULTS["500"], _reference("Error")),
    }
    if endpoint.needs_login:
        responses["401"] = _response(
            "The login is missing or wrong.", _reference("Error"), {"WWW-Authenticate": {"type": "string"}}
        )
    if endpoint.parameters:
        responses["429"] = _response(FAULTS["429"], _reference("Error"), {"Retry-After": _integer(0, 60)})
    return {
        "summary": endpoint.summary,
        "operationId": endpoint.path.strip("/").removesuffix(".json") or "index",
        "security": [{"basic": []}] if endpoint.needs_login else [],
        "parameters": [
            {
                "name": parameter.name,
                "in": "query",
                "description": DESCRIPTIONS[parameter.name],
                "schema": parameter.schema,
            }
            for parameter in endpoint.parameters
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
        {
            "result": {"type": "array", "items": _reference(row), "maxItems": LIMIT.maximum},
            OFFSET.name: _integer(OFFSET.minimum, OFFSET.maximum),
            LIMIT.name: _integer(LIMIT.minimum, LIMIT.maximum),
            "total": _integer(0, OFFSET.maximum),
        }
    )


def _object(properties: Schema) -> Schema:
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
