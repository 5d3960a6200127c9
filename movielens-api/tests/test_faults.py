"""The fault mode fails at about its rate, and affects nothing else."""

from __future__ import annotations

import time

import pytest
import requests
from movielens_api.faults import KINDS, Faults

DELAY = 0.2


@pytest.fixture(scope="module")
def start(serve, generated):
    def with_faults(rate, kinds=KINDS):
        options = {"rate": rate, "seed": 7, "kinds": ",".join(kinds), "delay": DELAY}
        arguments = [part for name, value in options.items() for part in (f"--fault-{name}", value)]
        return serve("--data", generated("small"), "--workers", 1, *arguments)

    return with_faults


def outcome(session, url):
    """What a client sees of one request, and the seconds it took."""
    start = time.monotonic()
    try:
        response = session.get(url, timeout=10)
        answer = response.json()
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError):
        return "cut", time.monotonic() - start
    if response.status_code == 429:
        assert response.headers["Retry-After"] == "1"
    if not response.ok:
        assert response.headers["Content-Type"] == "application/json"
        assert "fault mode" in answer["error"]
        return str(response.status_code), time.monotonic() - start
    assert len(answer["result"]) == 50
    return "answered", time.monotonic() - start


def test_every_fault_comes_when_the_seed_says_and_nothing_is_logged(start):
    service = start(rate=0.3)
    session = service.session()
    expected = Faults(rate=0.3, seed=7)
    drawn = []
    for path in ["/ratings", "/movies"] * 40:
        kind = expected.draw()
        drawn.append(kind)
        seen, seconds = outcome(session, f"{service.url}{path}?limit=50")
        assert seen == (kind if kind in ("429", "500", "cut") else "answered")
        assert kind != "slow" or seconds >= DELAY
    assert set(drawn) == {None, *KINDS}
    service.stop()
    assert service.log.read_text() == f"listening on {service.url}\n"


def test_faults_have_the_rate_and_each_kind_its_share():
    faults = Faults(rate=0.3, seed=1)
    drawn = [faults.draw() for _ in range(10_000)]
    assert 0.28 < 1 - drawn.count(None) / len(drawn) < 0.32
    for kind in KINDS:
        assert 0.06 < drawn.count(kind) / len(drawn) < 0.09


def test_another_seed_gives_other_faults():
    one, other = Faults(rate=0.3, seed=1), Faults(rate=0.3, seed=2)
    assert [one.draw() for _ in range(40)] != [other.draw() for _ in range(40)]


def test_a_cut_off_body_is_half_of_the_announced_one(start):
    service = start(rate=1, kinds=["cut"])
    with service.get("/ratings", stream=True) as response:
        announced = int(response.headers["Content-Length"])
        received: list[bytes] = []
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            received.extend(response.iter_content(64))
    body = b"".join(received)
    assert len(body) <= announced // 2
    assert body.startswith(b'{"result":[{"userId"')


def test_the_other_paths_and_bad_requests_have_no_faults(start):
    service = start(rate=1)
    for path, status in [("/", 200), ("/healthz", 200), ("/openapi.json", 200), ("/ratings?limit=0", 400)]:
        assert {service.get(path).status_code for _ in range(5)} == {status}
    assert requests.get(f"{service.url}/ratings", timeout=10).status_code == 401


def test_without_a_rate_nothing_fails(small):
    session = small.session()
    assert {outcome(session, f"{small.url}/ratings?limit=50")[0] for _ in range(100)} == {"answered"}


def test_a_client_that_retries_gets_every_row(start, small):
    service = start(rate=0.5, kinds=["429", "500", "cut"])
    session, rows = service.session(), []
    for offset in range(0, 1_000, 100):
        path = f"/ratings?limit=100&offset={offset}"
        for _ in range(30):
            try:
                response = session.get(service.url + path, timeout=10)
                page = response.json()["result"] if response.ok else None
            except requests.exceptions.RequestException:
                page = None
            if page is not None:
                break
        rows += page
    assert rows == small.get("/ratings?limit=1000").json()["result"]
