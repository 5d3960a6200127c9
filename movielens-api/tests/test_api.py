"""The interface, over HTTP from the real server."""

from __future__ import annotations

import base64
import http.client
import json
from datetime import UTC, date, datetime, timedelta

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

LOGIN_PATHS = ["/", "/ratings", "/movies"]
PUBLIC_PATHS = ["/healthz", "/openapi.json"]
LOGIN = ("learner", "a pass:word, ümlaut")  # conftest.py


@pytest.fixture(scope="module")
def all_ratings(small):
    """Every rating of the small profile, in one page."""
    answer = small.get("/ratings", params={"limit": 10_000}).json()
    assert len(answer["result"]) == answer["total"] == 1_000
    return answer["result"]


def epoch(day):
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


# --- what a client of the book's API does


def ratings_of_the_book_client(service, start_date, end_date, batch_size):
    """One session with basic auth; ask for the next batch until the total is reached."""
    session = service.session()
    offset, total = 0, None
    while total is None or offset < total:
        response = session.get(
            f"{service.url}/ratings",
            params={"start_date": start_date, "end_date": end_date, "offset": offset, "limit": batch_size},
        )
        response.raise_for_status()
        answer = response.json()
        yield from answer["result"]
        offset += batch_size
        total = answer["total"]


def test_the_client_of_the_book_reads_a_month(small, all_ratings):
    start, end = epoch(date(2019, 1, 1)), epoch(date(2019, 2, 1))
    expected = [row for row in all_ratings if start <= row["timestamp"] < end]
    assert expected
    assert list(ratings_of_the_book_client(small, "2019-01-01", "2019-02-01", 100)) == expected


def test_the_client_of_the_book_reads_everything_without_dates(small, all_ratings):
    assert list(ratings_of_the_book_client(small, None, None, 999)) == all_ratings


DAYS = st.dates(date(2018, 12, 1), date(2024, 2, 1))


@settings(max_examples=40)
@given(start=DAYS, days=st.integers(0, 90), size=st.integers(1, 60))
def test_any_page_size_and_interval_give_what_a_filter_gives(small, all_ratings, start, days, size):
    end = start + timedelta(days=days)
    expected = [row for row in all_ratings if epoch(start) <= row["timestamp"] < epoch(end)]
    assert list(ratings_of_the_book_client(small, str(start), str(end), size)) == expected


# --- ratings


def test_a_rating_has_the_four_fields_and_a_float(small):
    response = small.get("/ratings", params={"limit": 1})
    (row,) = response.json()["result"]
    assert list(row) == ["userId", "movieId", "rating", "timestamp"]
    assert [type(value) for value in row.values()] == [int, int, float, int]


def test_whole_stars_are_written_as_floats(small):
    rows = json.loads(small.get("/ratings", params={"limit": 1_000}).text, parse_float=str)["result"]
    assert {row["rating"] for row in rows} == {f"{half / 2:.1f}" for half in range(1, 11)}


def test_rows_come_by_timestamp_then_user_then_movie(all_ratings):
    keys = [(row["timestamp"], row["userId"], row["movieId"]) for row in all_ratings]
    assert keys == sorted(keys)


def test_the_default_page_is_the_first_hundred_rows(small, all_ratings):
    answer = small.get("/ratings").json()
    assert answer == {"result": all_ratings[:100], "offset": 0, "limit": 100, "total": 1_000}


@pytest.mark.parametrize("limit", [1, 7, 10_000])
def test_a_limit_from_1_to_10000_is_accepted(small, all_ratings, limit):
    answer = small.get("/ratings", params={"limit": limit, "offset": 990}).json()
    assert answer == {"result": all_ratings[990 : 990 + limit], "offset": 990, "limit": limit, "total": 1_000}


@pytest.mark.parametrize("offset", [1_000, 1_001, 2**31, 2**53 - 1])
def test_an_offset_past_the_end_is_an_empty_page(small, offset):
    response = small.get("/ratings", params={"offset": offset})
    assert response.status_code == 200
    assert response.json() == {"result": [], "offset": offset, "limit": 100, "total": 1_000}


def test_an_interval_of_one_and_the_same_day_is_empty(small):
    params = {"start_date": "2020-05-05", "end_date": "2020-05-05"}
    assert small.get("/ratings", params=params).json()["total"] == 0


def test_the_first_second_belongs_to_the_interval_and_the_last_does_not(serve, tmp_path):
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,One (2000),Drama\n")
    midnight = epoch(date(2020, 1, 1))
    rows = [f"{user},1,4.0,{midnight + second}\n" for user, second in enumerate((-1, 0, 1), start=1)]
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(rows))
    service = serve("--data", tmp_path, "--workers", 1)
    for side, expected in [("start_date", [2, 3]), ("end_date", [1])]:
        rows = service.get("/ratings", params={side: "2020-01-01"}).json()["result"]
        assert [row["userId"] for row in rows] == expected


@pytest.mark.parametrize("day", ["0001-01-01", "1969-12-31", "2106-02-08", "9999-12-31"])
def test_dates_far_from_the_data_are_accepted(small, day):
    before = small.get("/ratings", params={"end_date": day}).json()["total"]
    after = small.get("/ratings", params={"start_date": day}).json()["total"]
    assert (before, after) == ((0, 1_000) if day < "2000" else (1_000, 0))


# --- movies and the rest


def test_movies_come_page_by_page_and_in_order(small):
    everything = small.get("/movies", params={"limit": 10_000}).json()
    assert everything["total"] == len(everything["result"]) == 60
    assert [row["movieId"] for row in everything["result"]] == list(range(1, 61))
    assert list(everything["result"][0]) == ["movieId", "title", "genres"]
    page = small.get("/movies", params={"limit": 7, "offset": 56}).json()
    assert page == {"result": everything["result"][56:], "offset": 56, "limit": 7, "total": 60}


def test_every_rated_movie_is_listed(small, all_ratings):
    listed = {row["movieId"] for row in small.get("/movies", params={"limit": 10_000}).json()["result"]}
    assert {row["movieId"] for row in all_ratings} <= listed


def test_the_root_says_what_this_is_and_lists_the_endpoints(small):
    answer = small.get("/").json()
    assert answer["name"] == "movielens-api"
    assert set(answer["endpoints"]) == {*LOGIN_PATHS, *PUBLIC_PATHS}
    assert answer["data"]["ratings"] == 1_000


@pytest.mark.parametrize("path", PUBLIC_PATHS)
def test_public_paths_need_no_login(small, path):
    assert requests.get(small.url + path, timeout=10).status_code == 200


def test_one_connection_serves_one_request_after_the_other(small):
    connection = http.client.HTTPConnection("127.0.0.1", small.port, timeout=10)
    connection.connect()
    connection.auto_open = False  # a request on a closed connection is now an error
    for limit in (1, 100, 1_000):
        connection.request("GET", f"/ratings?limit={limit}", headers={"Authorization": basic(*LOGIN)})
        assert len(json.loads(connection.getresponse().read())["result"]) == limit
    connection.close()


# --- bad requests

BAD = [
    ("limit=0", "limit"),
    ("limit=-1", "limit"),
    ("limit=10001", "limit"),
    ("limit=abc", "limit"),
    ("limit=", "limit"),
    ("limit", "limit"),
    ("limit=1.0", "limit"),
    ("limit=1e2", "limit"),
    ("limit=0x10", "limit"),
    ("limit=1_0", "limit"),
    ("limit=%2B5", "limit"),
    ("limit=+5", "limit"),  # a space, once decoded
    ("limit=5%20", "limit"),
    ("limit=5%0A", "limit"),
    ("limit=05", "limit"),
    ("limit=%D9%A5", "limit"),  # the Arabic digit five
    ("limit=%C2%B2", "limit"),  # superscript two
    ("limit=" + "9" * 2_000, "limit"),
    ("limit=1&limit=2", "limit"),
    ("limit=1&limit=1", "limit"),
    ("offset=-1", "offset"),
    ("offset=", "offset"),
    ("offset=9007199254740992", "offset"),
    ("offset=0&offset=0", "offset"),
    ("page=2", "page"),
    ("Limit=5", "Limit"),
    ("=5", ""),
    ("%FF=5", "%FF"),
]
BAD_DATES = [
    "2019-02-30", "2019-13-01", "2019-00-10", "2019-1-1", "19-01-01", "20190101", "2019-W01-1", "2019/01/01",
    "01-01-2019", "2019-01-01T00:00:00", "2019-01-01 ", " 2019-01-01", "+2019-01-01", "0000-01-01", "today", "",
    "2019-01-0\u0661",
]  # fmt: skip


def assert_names_the_parameter(response, parameter):
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/json"
    answer = response.json()
    assert set(answer) == {"error", "parameter", "allowed"}
    assert answer["parameter"] == parameter
    assert parameter in answer["error"]
    assert answer["allowed"] in answer["error"]
    return answer


@pytest.mark.parametrize(("query", "parameter"), BAD)
@pytest.mark.parametrize("path", ["/ratings", "/movies"])
def test_a_bad_parameter_is_named_with_what_is_allowed(small, path, query, parameter):
    assert_names_the_parameter(small.get(f"{path}?{query}"), parameter)


@pytest.mark.parametrize("text", BAD_DATES)
@pytest.mark.parametrize("parameter", ["start_date", "end_date"])
def test_a_bad_date_is_named_with_the_form(small, parameter, text):
    answer = assert_names_the_parameter(small.get("/ratings", params={parameter: text}), parameter)
    assert "YYYY-MM-DD" in answer["allowed"]


def test_a_start_after_the_end_is_refused(small):
    response = small.get("/ratings", params={"start_date": "2019-03-02", "end_date": "2019-03-01"})
    assert "end_date" in assert_names_the_parameter(response, "start_date")["error"]


def test_movies_have_no_dates(small):
    assert_names_the_parameter(small.get("/movies?start_date=2019-01-01"), "start_date")


@pytest.mark.parametrize("path", ["/", *PUBLIC_PATHS])
def test_paths_without_parameters_refuse_any(small, path):
    assert_names_the_parameter(small.get(f"{path}?limit=1"), "limit")


def test_the_allowed_values_are_the_true_ones(small):
    assert "1 to 10000" in small.get("/ratings?limit=0").json()["allowed"]
    assert small.get("/ratings?foo=1").json()["allowed"] == "start_date, end_date, offset, limit"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/rating", 404),
        ("GET", "/ratings/", 404),
        ("POST", "/ratings", 405),
        ("OPTIONS", "/ratings", 405),
        ("DELETE", "/healthz", 405),
    ],
)
def test_other_errors_are_json_too(small, method, path, status):
    response = requests.request(method, small.url + path, auth=small.auth, timeout=10)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    assert set(response.json()) == {"error"}
    if status == 405:
        assert "GET" in response.headers["Allow"]


def test_a_request_line_up_to_8190_bytes_is_read_and_a_longer_one_is_414(small):
    assert_names_the_parameter(small.get("/ratings?limit=" + "9" * 8_100), "limit")
    assert small.get("/ratings?limit=" + "9" * 8_200).status_code == 414


def test_an_unexpected_error_is_a_json_500_without_its_details():
    from movielens_api.app import create_app
    from movielens_api.columns import Dataset, Movies
    from movielens_api.credentials import Credentials

    class Broken:
        def page(self, *arguments):
            raise RuntimeError("secret detail")

    client = create_app(Dataset({}, Broken(), Movies([])), Credentials("u", "p")).test_client()
    response = client.get("/ratings", auth=("u", "p"))
    assert response.status_code == 500
    assert response.content_type == "application/json"
    assert "secret" not in response.text


# --- login


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


WRONG_LOGINS = {
    "none": None,
    "wrong password": basic("learner", "wrong"),
    "wrong user": basic("nobody", LOGIN[1]),
    "empty": basic("", ""),
    "password cut short": basic("learner", "a pass:word, ümlau"),
    "no colon": "Basic " + base64.b64encode(b"learner").decode(),
    "not base64": "Basic %%%",
    "not UTF-8": "Basic " + base64.b64encode(b"\xff:\xff").decode(),
    "no value": "Basic",
    "another scheme": "Bearer abc",
    "the right text under another scheme": basic(*LOGIN).replace("Basic", "Digest"),
}


@pytest.mark.parametrize("header", WRONG_LOGINS.values(), ids=WRONG_LOGINS.keys())
@pytest.mark.parametrize("path", LOGIN_PATHS)
def test_a_wrong_login_gets_the_same_401_whatever_is_wrong(small, path, header):
    headers = {} if header is None else {"Authorization": header}
    response = requests.get(small.url + path, headers=headers, timeout=10)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Basic realm="movielens-api", charset="UTF-8"'
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == {"error": "log in with HTTP basic auth"}


def test_the_login_comes_before_the_parameters(small):
    assert requests.get(f"{small.url}/ratings?limit=0", timeout=10).status_code == 401


def test_both_parts_of_a_login_are_always_compared(monkeypatch):
    import hmac

    from movielens_api.credentials import Credentials

    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    for user, password, matches in [("u", "p", True), ("x", "p", False), ("u", "x", False), ("x", "x", False)]:
        compared.clear()
        assert Credentials("u", "p").match(user, password) is matches
        assert compared == [(user.encode(), b"u"), (password.encode(), b"p")]
