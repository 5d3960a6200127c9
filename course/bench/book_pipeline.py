"""The baseline's two steps: every page into one list and one JSON array; that array into pandas, grouped and sorted.

Naive on purpose: it is what we measure against.

    python book_pipeline.py fetch URL START END OUTPUT_JSON SECONDS
    python book_pipeline.py rank INPUT_JSON OUTPUT_CSV
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

STARTED = time.monotonic()

PAGE = 100
MIN_RATINGS = 3


def fetch(url: str, start: str, end: str, output: str, seconds: str) -> None:
    """Fetch all ratings of an interval, or as many as come in that many seconds, and print as JSON how many."""
    import requests

    before = spent()
    started = time.monotonic()
    ratings: list[Any] = []
    pages = 0
    total = None
    with requests.Session() as session:
        session.trust_env = False
        while (total is None or len(ratings) < total) and time.monotonic() - started < float(seconds):
            params: dict[str, str | int] = {
                "start_date": start,
                "end_date": end,
                "offset": len(ratings),
                "limit": PAGE,
            }
            response = session.get(url, params=params, timeout=60)
            response.raise_for_status()
            answer = response.json()
            ratings.extend(answer["result"])
            total = answer["total"]
            pages += 1
    with Path(output).open("w") as file:
        json.dump(ratings, file)
    print(json.dumps({"ratings": len(ratings), "pages": pages, "page_size": PAGE, "before": before}))


def rank(source: str, output: str) -> None:
    """Rank a JSON array of ratings by their mean."""
    import pandas as pd

    before = spent()
    ratings = pd.read_json(source)
    ranking = ratings.groupby("movieId").agg(
        avg_rating=pd.NamedAgg("rating", "mean"), num_ratings=pd.NamedAgg("userId", "nunique")
    )
    ranking = ranking[ranking["num_ratings"] >= MIN_RATINGS]
    ranking.sort_values(["avg_rating", "num_ratings"], ascending=False).to_csv(output)
    print(json.dumps({"before": before}))


def spent() -> dict[str, float]:
    """What this process took so far, to tell what it needs anyway from what it needs a rating."""
    return {
        "seconds": time.monotonic() - STARTED,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    step, *arguments = sys.argv[1:]
    fetch(*arguments) if step == "fetch" else rank(*arguments)
