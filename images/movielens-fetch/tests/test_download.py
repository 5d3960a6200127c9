"""What arrives in the file: every row once and in order, at any page size, whatever goes wrong on the way."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from movielens_fetch.errors import FetchFailed


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 60), batch_size=st.integers(1, 70), faults=st.lists(st.integers(0, 4), max_size=2))
def test_any_page_size_gives_the_same_file_with_and_without_faults(api, fetch, count, batch_size, faults):
    api.fill(count)
    kinds = [api.status(500), api.cut_off(), api.hang_up(), api.body("<html>"), api.good(total=999)]
    api.script.extend([api.good(), *(kinds[fault] for fault in faults)] if count > batch_size else [])
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "ratings.csv"
        fetched = fetch.func(*fetch.args[:2], output, **fetch.keywords, batch_size=batch_size)
        assert output.read_text() == api.csv()
    assert fetched.rows == count
    api.script.clear()


def test_an_interval_without_ratings_gives_a_file_with_only_the_header(api, fetch, output):
    api.fill(0)
    assert fetch().rows == 0
    assert output.read_bytes() == b"userId,movieId,rating,timestamp\n"


def test_each_request_has_the_interval_the_login_and_its_offset(api, fetch):
    api.fill(5)
    fetch(batch_size=2)
    assert [seen.query["offset"] for seen in api.seen] == ["0", "2", "4"]
    for seen in api.seen:
        assert seen.path == "/ratings"
        assert seen.authorization == api.login
        assert seen.query["limit"] == "2"
        assert (seen.query["start_date"], seen.query["end_date"]) == ("2019-01-01", "2019-02-01")


def test_all_pages_use_one_connection(api, fetch):
    fetch(batch_size=5)
    assert len(api.seen) == 10
    assert len({seen.connection for seen in api.seen}) == 1


def test_a_rating_sent_without_decimals_is_written_with_one(api, fetch, output):
    api.ratings = [(1, 2, 4, 1546300800)]
    fetch()
    assert output.read_text().splitlines()[1] == "1,2,4.0,1546300800"


def test_rows_that_appear_between_two_pages_are_neither_lost_nor_duplicated(api, fetch, output):
    api.fill(40, first=5)
    api.script.extend([api.good(), api.good(), api.after(lambda: api.fill(50))])
    fetched = fetch(batch_size=10)
    assert (fetched.rows, fetched.restarts) == (50, 1)
    assert output.read_text() == api.csv()


def test_rows_that_vanish_between_two_pages_leave_no_trace(api, fetch, output):
    api.script.extend([api.good(), api.good(), api.after(lambda: api.fill(15))])
    assert fetch(batch_size=10).restarts == 1
    assert output.read_text() == api.csv()


def test_a_row_that_replaces_another_is_detected_by_the_order(api, fetch, output):
    """The total stays, but a row moves from the second page to the first: its neighbour would be duplicated."""
    api.fill(20, first=1)
    api.script.extend([api.good(), api.after(lambda: api.fill(20))])
    assert fetch(batch_size=10).restarts == 1
    assert output.read_text() == api.csv()


@pytest.mark.parametrize("rows", [slice(0, 0), slice(0, 9)], ids=["an empty page", "a short page"])
def test_a_page_that_is_too_short_starts_the_download_over(api, fetch, output, rows):
    def short(handler):
        handler.send(200, handler.page(result=json.loads(handler.page())["result"][rows]))

    api.script.extend([api.good(), short])
    assert fetch(batch_size=10).restarts == 1
    assert output.read_text() == api.csv()


def test_rows_out_of_order_start_the_download_over(api, fetch, output):
    def reversed_rows(handler):
        handler.send(200, handler.page(result=json.loads(handler.page())["result"][::-1]))

    api.script.append(reversed_rows)
    assert fetch().restarts == 1
    assert output.read_text() == api.csv()


GOOD = {"userId": 1, "movieId": 2, "rating": 4.0, "timestamp": 1546300800}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[]", "the answer is not an object"),
        ("{}", "'total' is null"),
        ({"total": True, "result": []}, "'total' is true"),
        ({"total": -1, "result": []}, "'total' is -1"),
        ({"total": 1.0, "result": []}, "'total' is 1.0"),
        ({"total": 1}, "'result' is null"),
        ({"total": 1, "result": {"0": GOOD}}, "'result' is {"),
        ({"total": 1, "result": [[1, 2, 4.0, 1546300800]]}, "a rating is not an object"),
        ({"total": 1, "result": [None]}, "a rating is not an object"),
        ({"total": 1, "result": [{"userId": 1}]}, "a rating lacks 'movieId'"),
        ({"total": 1, "result": [GOOD | {"userId": "1,2\n3"}]}, r'a userId is "1,2\n3", not a whole number'),
        ({"total": 1, "result": [GOOD | {"userId": True}]}, "a userId is true"),
        ({"total": 1, "result": [GOOD | {"movieId": 1.5}]}, "a movieId is 1.5"),
        ({"total": 1, "result": [GOOD | {"timestamp": None}]}, "a timestamp is null"),
        ({"total": 1, "result": [GOOD | {"rating": "4.0"}]}, 'a rating is "4.0", not a number'),
        ({"total": 1, "result": [GOOD | {"rating": [4.0]}]}, "a rating is [4.0], not a number"),
        ('{"total": 1, "result": [{"userId": 1, "movieId": 2, "rating": 1e999, "timestamp": 3}]}', "infinite"),
    ],
)
def test_an_answer_of_another_form_ends_the_download_at_once_and_says_where(api, fetch, output, body, words):
    api.always = api.body(body if isinstance(body, str) else json.dumps(body))
    with pytest.raises(FetchFailed) as raised:
        fetch()
    assert words in raised.value.message
    assert api.host in raised.value.message
    assert len(api.seen) == 1
    assert not list(output.parent.iterdir())


def test_more_rows_than_asked_for_end_the_download(api, fetch, output):
    def all_of_them(handler):
        handler.query["limit"] = "50"
        handler.send(200, handler.page())

    api.always = all_of_them
    with pytest.raises(FetchFailed, match="sent 50 ratings where 10 were asked for"):
        fetch(batch_size=10)
    assert not list(output.parent.iterdir())


def test_an_endless_body_does_not_fill_the_memory(api, fetch, output):
    api.always = api.flood()
    with pytest.raises(FetchFailed, match="more than"):
        fetch()
    assert not list(output.parent.iterdir())
