"""The Flask application: routes, authentication and JSON errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from movielens_api.columns import Dataset
from movielens_api.credentials import Credentials
from movielens_api.endpoints import ENDPOINTS, HEALTHZ, INDEX, MOVIES, OPENAPI, RATINGS, Endpoint
from movielens_api.faults import RETRY_AFTER, Faults
from movielens_api.openapi import openapi_document
from movielens_api.parameters import BadParameter, parse_query

REALM = "movielens-api"
PUBLIC_PATHS = {endpoint.path for endpoint in ENDPOINTS if not endpoint.needs_login}


def create_app(dataset: Dataset, credentials: Credentials, faults: Faults | None = None) -> Flask:
    """Return the WSGI application that serves `dataset` to clients with these `credentials`."""
    app = Flask("movielens_api", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # a redirect would be an answer outside the OpenAPI document
    document = orjson.dumps(openapi_document())

    @app.before_request
    def authenticate() -> Response | None:
        if request.url_rule is None or request.url_rule.rule in PUBLIC_PATHS:  # None: 404 or 405, which reveal nothing
            return None
        given = request.authorization
        basic = given is not None and given.type == "basic"
        user, password = (given.username, given.password) if given and basic else (None, None)
        if credentials.match(user or "", password or ""):
            return None
        return json_error(
            401, "log in with HTTP basic auth", {"WWW-Authenticate": f'Basic realm="{REALM}", charset="UTF-8"'}
        )

    @app.get(INDEX.path)
    def index() -> Response:
        query(INDEX)
        return json_response(
            {
                "name": "movielens-api",
                "description": "A mock of the MovieLens ratings service. Ratings come page by page, by interval.",
                "data": dataset.about,
                "endpoints": {endpoint.path: endpoint.summary for endpoint in ENDPOINTS},
            }
        )

    @app.get(RATINGS.path)
    def ratings() -> Response:
        values = query(RATINGS)
        offset, limit = values["offset"], values["limit"]
        result, total = dataset.ratings.page(values.get("start_date"), values.get("end_date"), offset, limit)
        return page(result, total, offset, limit)

    @app.get(MOVIES.path)
    def movies() -> Response:
        values = query(MOVIES)
        offset, limit = values["offset"], values["limit"]
        result, total = dataset.movies.page(offset, limit)
        return page(result, total, offset, limit)

    @app.get(HEALTHZ.path)
    def healthz() -> Response:
        query(HEALTHZ)
        return json_response({"status": "ok"})

    @app.get(OPENAPI.path)
    def openapi() -> Response:
        query(OPENAPI)
        return Response(document, content_type="application/json")

    def page(result: Any, total: int, offset: int, limit: int) -> Response:
        response = json_response({"result": result, "offset": offset, "limit": limit, "total": total})
        return response if faults is None else with_fault(response, faults)

    @app.errorhandler(BadParameter)
    def bad_parameter(problem: BadParameter) -> Response:
        return json_response(
            {"error": str(problem), "parameter": problem.parameter, "allowed": problem.allowed}, status=400
        )

    @app.errorhandler(HTTPException)
    def http_error(problem: HTTPException) -> Response:
        # Flask logs an unexpected exception and passes it here as InternalServerError.
        message = f"{problem.name}: {request.method} {request.path}"
        if isinstance(problem, MethodNotAllowed):
            return json_error(405, message, {"Allow": ", ".join(sorted(problem.valid_methods or ()))})
        return json_error(problem.code or 500, message)

    return app


def query(endpoint: Endpoint) -> dict[str, int]:
    """Return the values of this request's parameters. Raises BadParameter."""
    return parse_query(request.args.lists(), endpoint.parameters)


def json_response(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, content_type="application/json")


def json_error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    response = json_response({"error": message}, status)
    response.headers.update(headers or {})
    return response


def with_fault(response: Response, faults: Faults) -> Response:
    """Return the response, or what the fault mode makes of it."""
    match faults.draw():
        case "429":
            return json_error(429, "fault mode: too many requests", {"Retry-After": str(RETRY_AFTER)})
        case "500":
            return json_error(500, "fault mode: internal error")
        case "slow":
            faults.wait()
        case "cut":
            return cut_off(response)
    return response


def cut_off(response: Response) -> Response:
    """Return the same response, whose connection closes half way through the announced body."""
    body = response.get_data()

    def half() -> Iterator[bytes]:
        yield body[: len(body) // 2]
        # Gunicorn takes this error for a client that went away: it closes the connection and logs nothing.
        raise ConnectionResetError(errno.ECONNRESET, "fault mode: cut off")

    return Response(half(), response.status, {"Content-Length": str(len(body))}, content_type=response.content_type)
