"""The yardstick: DuckDB makes the ranking of `rank-movies` from the same CSV, with all the cores it finds.

python duckdb_rank.py RATINGS_CSV OUTPUT_CSV
"""

import sys

import duckdb

MIN_RATINGS = 3

RANKING = """
    SELECT movieId, avg(rating) AS avg_rating, count(*) AS num_ratings
    FROM read_csv($ratings, header = true)
    GROUP BY movieId
    HAVING count(*) >= $min_ratings
    ORDER BY avg_rating DESC, num_ratings DESC, movieId
"""


def main(ratings: str, output: str) -> None:
    """Rank a ratings CSV into a rankings CSV."""
    ranking = duckdb.execute(RANKING, {"ratings": ratings, "min_ratings": MIN_RATINGS}).fetchall()
    with open(output, "w") as file:  # noqa: PTH123 (no import that would count)
        file.write("movieId,avg_rating,num_ratings\n")
        file.writelines(f"{movie},{score},{ratings}\n" for movie, score, ratings in ranking)


if __name__ == "__main__":
    main(*sys.argv[1:])
