"""What every version of the pipeline must store: the API read by a plain client, ranked without pandas."""

from collections import defaultdict

import requests

from course import embedded


def ratings_of(api: embedded.Api, start: str, end: str, page: int = 100) -> list[dict]:
    """Read an interval as the book's client does: basic auth, offset and limit, until total."""
    session = requests.Session()
    session.auth = (api.user, api.password)
    ratings: list[dict] = []
    total = None
    while total is None or len(ratings) < total:
        params = {"start_date": start, "end_date": end, "offset": len(ratings), "limit": page}
        response = session.get(f"http://{api.host}:{api.port}/ratings", params=params, timeout=30)
        response.raise_for_status()
        answer = response.json()
        ratings += answer["result"]
        total = answer["total"]
    return ratings


def rows_of(ratings: list[dict], start: str, pipeline: str = "01_mixed_operators") -> list[tuple]:
    """Rank in plain Python: the rows that the table must hold."""
    scores = defaultdict(list)
    for rating in ratings:
        scores[rating["movieId"]].append(rating["rating"])
    ranked = sorted(
        ((movie, sum(given) / len(given), len(given)) for movie, given in scores.items() if len(given) >= 3),
        key=lambda row: (-row[1], -row[2], row[0]),
    )
    return [(pipeline, start, position, *row) for position, row in enumerate(ranked, start=1)]
