"""Which failures are retried, for how long, and with which message the others end."""

import time
from email.utils import formatdate

import pytest
from movielens_fetch.errors import BadInput, FetchFailed


@pytest.fixture
def clock():
    started = time.monotonic()
    return lambda: time.monotonic() - started


@pytest.mark.parametrize("fault", ["cut_off", "hang_up"])
def test_a_connection_that_breaks_costs_one_short_retry(api, fetch, output, clock, fault):
    api.script.append(getattr(api, fault)())
    assert fetch().retries == 1
    assert clock() < 1
    assert output.read_text() == api.csv()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_or_failing_server_is_asked_again(api, fetch, output, status):
    api.script.append(api.status(status))
    assert fetch().retries == 1
    assert output.read_text() == api.csv()


@pytest.mark.parametrize("body", ['{"result": [', "", "<html>", "NaN", "[" * 100_000, "\ud7ff\x00"])
def test_a_body_that_is_not_json_is_asked_for_again(api, fetch, output, body):
    api.script.append(api.body(body))
    assert fetch().retries == 1
    assert output.read_text() == api.csv()


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_waited_for(api, fetch, clock, status):
    api.script.append(api.status(status, Retry_After="1"))
    fetch()
    assert 1 <= clock() < 2


def test_retry_after_as_a_date_is_waited_for(api, fetch, clock):
    api.script.append(api.status(429, Retry_After=formatdate(time.time() + 2, usegmt=True)))
    fetch()
    assert 0.9 <= clock() < 3  # the header has whole seconds


@pytest.mark.parametrize("value", ["0", "soon", "-5", "1.5", "Mon, 01 Jan 2001 00:00:00 GMT", "Mon, 99 Foo 2001"])
def test_an_invalid_or_past_retry_after_leaves_the_usual_wait(api, fetch, clock, value):
    api.script.append(api.status(429, Retry_After=value))
    fetch()
    assert 0.1 <= clock() < 1


@pytest.mark.parametrize("value", ["3600", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_retry_after_beyond_the_deadline_fails_at_once(api, fetch, clock, value):
    api.always = api.status(429, Retry_After=value)
    with pytest.raises(FetchFailed, match="429"):
        fetch()
    assert clock() < 1
    assert len(api.seen) == 1


def drip(api):
    head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    return api.drip(head + " " * 1000, every=0.01)


def drip_head(api):
    return api.drip("HTTP/1.1 200 OK\r\nServer: " + "x" * 1000, every=0.01)


def another_total_each_time(api):
    return lambda handler: handler.send(200, handler.page(total=len(api.seen) + 100))


def forever_full(api):
    return api.status(429, Retry_After="0")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda api: api.hang(), "no complete answer"),
        (drip, "no complete answer"),
        (drip_head, "no complete answer"),
        (lambda api: api.hang_up(), "closed connection"),
        (lambda api: api.cut_off(), "IncompleteRead"),
        (lambda api: api.body("<html>"), "not JSON"),
        (lambda api: api.status(500), "500"),
        (forever_full, "429"),
        (another_total_each_time, "the number of ratings changed"),
        (lambda api: api.good(result=[]), "a page has 0 ratings, not 10"),
    ],
)
def test_the_deadline_holds_for_an_api_that_never_recovers(api, fetch, output, clock, answer, words):
    api.always = answer(api)
    with pytest.raises(FetchFailed) as raised:
        fetch(batch_size=10, timeout=3)
    assert clock() < 4
    assert f"gave up on {api.host}/ratings after 3 s" in raised.value.message
    assert words in raised.value.message
    assert not list(output.parent.iterdir())
    assert len(api.seen) < 40, "it hammered the API"


def test_an_api_that_is_not_there_is_waited_for_until_the_deadline(second_api, fetch, clock):
    second_api.server_close()
    with pytest.raises(FetchFailed, match=f"{second_api.host}/ratings after 2 s.*: Connection refused"):
        fetch(host=second_api.host, timeout=2)
    assert 1.5 < clock() < 4


def test_new_rows_restart_the_full_time(api, fetch, output, clock):
    """Five failures of 0.3 s are more than the limit of one second, but each is followed by new rows."""
    for _ in range(5):
        api.script.extend([lambda handler: api.closing.wait(0.2) or handler.send(500, ""), api.good()])
    assert fetch(batch_size=5, timeout=1).retries == 5
    assert clock() > 1.5
    assert output.read_text() == api.csv()


def test_a_request_that_hangs_leaves_time_for_another(api, fetch, output):
    api.script.append(api.hang())
    assert fetch(timeout=3).retries == 1
    assert output.read_text() == api.csv()


def test_a_wrong_login_ends_at_once_and_names_the_variables(api, fetch):
    api.always = api.status(401)
    with pytest.raises(BadInput, match=r"401.*MOVIELENS_USER.*MOVIELENS_PASSWORD.*MOVIELENS_PASSWORD_FILE"):
        fetch()
    assert len(api.seen) == 1


def test_a_refused_parameter_ends_at_once_with_the_message_of_the_api(api, fetch):
    api.always = api.status(400, '{"error": "limit: got 7000\\u001b[31m", "parameter": "limit"}')
    with pytest.raises(BadInput) as raised:
        fetch()
    assert raised.value.message == f"{api.host}/ratings refused the request: limit: got 7000 [31m"
    assert len(api.seen) == 1


@pytest.mark.parametrize("status", [403, 404, 405, 418, 204, 206])
def test_any_other_status_ends_at_once(api, fetch, status):
    api.always = api.status(status)
    with pytest.raises(FetchFailed, match=f"answered {status}"):
        fetch()
    assert len(api.seen) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_so_no_other_host_gets_the_password(api, second_api, fetch, status):
    api.always = api.status(status, Location=f"{second_api.host}/ratings")
    with pytest.raises(FetchFailed, match=f"redirects to {second_api.host}/ratings"):
        fetch()
    assert second_api.seen == []


def test_a_last_try_without_time_does_not_hide_why_the_others_failed(api, fetch):
    """Each has less than a second: the first is refused, the others hang."""
    api.script.append(api.status(500))
    api.always = api.hang()
    with pytest.raises(FetchFailed, match="the API answered 500"):
        fetch(timeout=1.5)
