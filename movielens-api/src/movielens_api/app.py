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
from movielens_api.faults import RETRY_AFTER, Faults
from movielens_api.openapi import ENDPOINTS, openapi_document
from movielens_api.parameters import OF_MOVIES, OF_RATINGS, BadParameter, Parameter, parse_query

REALM = "movielens-api"
OPEN = {"healthz", "openapi"}


def create_app(dataset: Dataset, credentials: Credentials, faults: Faults | None = None) -> Flask:
    """The WSGI application that serves `dataset` to whoever has the `credentials`."""
    app = Flask("movielens_api", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # a redirect would be an answer outside the OpenAPI document
    document = orjson.dumps(openapi_document())

    @app.before_request
    def authenticate() -> Response | None:
        if request.endpoint is None or request.endpoint in OPEN:  # None: 404 or 405, which tell nothing
            return None
        given = request.authorization
        basic = given is not None and given.type == "basic"
        user, password = (given.username, given.password) if given and basic else (None, None)
        if credentials.match(user or "", password or ""):
            return None
        return error(
            401, "log in with HTTP basic auth", {"WWW-Authenticate": f'Basic realm="{REALM}", charset="UTF-8"'}
        )

    @app.get("/")
    def index() -> Response:
        query()
        return answer(
            {
                "name": "movielens-api",
                "description": "A mock of the MovieLens ratings service. Ratings come page by page, by interval.",
                "data": dataset.about,
                "endpoints": ENDPOINTS,
            }
        )

    @app.get("/ratings")
    def ratings() -> Response:
        values = query(*OF_RATINGS)
        offset, limit = values["offset"], values["limit"]
        result, total = dataset.ratings.page(values.get("start_date"), values.get("end_date"), offset, limit)
        return page(result, total, offset, limit)

    @app.get("/movies")
    def movies() -> Response:
        values = query(*OF_MOVIES)
        offset, limit = values["offset"], values["limit"]
        result, total = dataset.movies.page(offset, limit)
        return page(result, total, offset, limit)

    @app.get("/healthz")
    def healthz() -> Response:
        query()
        return answer({"status": "ok"})

    @app.get("/openapi.json")
    def openapi() -> Response:
        query()
        return Response(document, content_type="application/json")

    def page(result: Any, total: int, offset: int, limit: int) -> Response:
        whole = answer({"result": result, "offset": offset, "limit": limit, "total": total})
        return whole if faults is None else with_fault(whole, faults)

    @app.errorhandler(BadParameter)
    def bad_parameter(problem: BadParameter) -> Response:
        return answer({"error": str(problem), "parameter": problem.parameter, "allowed": problem.allowed}, status=400)

    @app.errorhandler(HTTPException)
    def http_error(problem: HTTPException) -> Response:
        # Flask logs an unexpected exception and passes it here as InternalServerError.
        message = f"{problem.name}: {request.method} {request.path}"
        if isinstance(problem, MethodNotAllowed):
            return error(405, message, {"Allow": ", ".join(sorted(problem.valid_methods or ()))})
        return error(problem.code or 500, message)

    return app


def query(*parameters: Parameter) -> dict[str, int]:
    """The values of this request's parameters. Raises BadParameter."""
    return parse_query(request.args.lists(), parameters)


def answer(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, content_type="application/json")


def error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    response = answer({"error": message}, status)
    response.headers.update(headers or {})
    return response


def with_fault(whole: Response, faults: Faults) -> Response:
    """The answer, or what the fault mode makes of it."""
    match faults.draw():
        case "429":
            return error(429, "fault mode: too many requests", {"Retry-After": str(RETRY_AFTER)})
        case "500":
            return error(500, "fault mode: internal error")
        case "slow":
            faults.wait()
        case "cut":
            return cut_off(whole)
    return whole


def cut_off(whole: Response) -> Response:
    """The same answer, whose connection closes half way through the announced body."""
    body = whole.get_data()

    def half() -> Iterator[bytes]:
        yield body[: len(body) // 2]
        # Gunicorn takes this error for a client that went away: it closes the connection and logs nothing.
        raise ConnectionResetError(errno.ECONNRESET, "fault mode: cut off")

    return Response(half(), whole.status, {"Content-Length": str(len(body))}, content_type=whole.content_type)
