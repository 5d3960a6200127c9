"""The endpoints: what the application routes, what the root lists and what the OpenAPI document describes."""

from __future__ import annotations

from typing import NamedTuple

from movielens_api.parameters import END_DATE, LIMIT, OFFSET, START_DATE, Parameter


class Endpoint(NamedTuple):
    """A path that answers GET."""

    path: str
    summary: str
    parameters: tuple[Parameter, ...] = ()
    needs_login: bool = True


INDEX = Endpoint("/", "what this service is")
RATINGS = Endpoint(
    "/ratings",
    "the ratings of an interval, by timestamp, then userId, then movieId",
    (START_DATE, END_DATE, OFFSET, LIMIT),
)
MOVIES = Endpoint("/movies", "the movies, by movieId", (OFFSET, LIMIT))
HEALTHZ = Endpoint("/healthz", "whether the service answers; needs no login", needs_login=False)
OPENAPI = Endpoint("/openapi.json", "this interface, described; needs no login", needs_login=False)

ENDPOINTS = (INDEX, RATINGS, MOVIES, HEALTHZ, OPENAPI)
