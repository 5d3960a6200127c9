"""The OpenAPI document is true: schemathesis makes requests from it and compares the answers."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import settings

from movielens_api.openapi import ENDPOINTS


@pytest.fixture(scope="module")
def document(small):
    return schemathesis.openapi.from_url(f"{small.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=60, deadline=None)
def test_every_answer_is_a_documented_one(case, small):
    case.call_and_validate(auth=small.auth)


def test_every_endpoint_is_documented(small):
    paths = small.get("/openapi.json").json()["paths"]
    assert set(paths) == set(ENDPOINTS)
