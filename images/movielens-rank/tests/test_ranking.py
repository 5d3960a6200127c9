"""rank_movies against a reference in plain Python."""

import ast
import math
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from movielens_rank import rank_movies
from movielens_rank.names import METHODS
from movielens_rank.ranking import _SCORES

Z = 1.959963984540054

half_stars = st.integers(1, 10).map(lambda halves: halves / 2)
rating_lists = st.lists(st.tuples(st.integers(1, 8), half_stars), max_size=60)


def frame(ratings):
    return pd.DataFrame(
        {
            "movieId": pd.Series([movie for movie, _ in ratings], dtype="int64"),
            "rating": pd.Series([stars for _, stars in ratings], dtype="float64"),
        }
    )


def rows(rankings):
    return list(rankings.itertuples(index=False, name=None))


def reference(ratings, min_ratings, method):
    stars_of = defaultdict(list)
    for movie, stars in ratings:
        stars_of[movie].append(stars)
    scored = []
    for movie, stars in stars_of.items():
        n = len(stars)
        if n < min_ratings:
            continue
        mean = sum(stars) / n
        if method == "mean":
            score = mean
        elif method == "bayes":
            mean_of_all = sum(stars for _, stars in ratings) / len(ratings)
            score = n / (n + min_ratings) * mean + min_ratings / (n + min_ratings) * mean_of_all
        else:
            p = sum(s >= 4 for s in stars) / n
            spread = Z * math.sqrt((p * (1 - p) + Z * Z / (4 * n)) / n)
            score = (p + Z * Z / (2 * n) - spread) / (1 + Z * Z / n) if p else 0.0
        scored.append((movie, score, n))
    return sorted(scored, key=lambda row: (-row[1], -row[2], row[0]))


@pytest.mark.parametrize("method", METHODS)
@given(ratings=rating_lists, min_ratings=st.integers(1, 6))
def test_the_ranking_is_that_of_the_reference(method, ratings, min_ratings):
    assert rows(rank_movies(frame(ratings), min_ratings, method)) == reference(ratings, min_ratings, method)


@pytest.mark.parametrize("method", METHODS)
@given(ratings=rating_lists, seed=st.integers())
def test_the_order_of_the_ratings_does_not_matter(method, ratings, seed):
    shuffled = ratings.copy()
    random.Random(seed).shuffle(shuffled)  # noqa: S311
    pd.testing.assert_frame_equal(
        rank_movies(frame(ratings), 1, method), rank_movies(frame(shuffled), 1, method), check_exact=True
    )


def test_sums_do_not_depend_on_the_order_even_where_floats_would():
    tenths = [3.3, 0.7, 4.9, 1.1, 2.2] * 20
    assert sum(tenths) != sum(sorted(tenths))
    results = [rank_movies(frame([(1, stars) for stars in order])) for order in (tenths, sorted(tenths))]
    assert rows(results[0]) == rows(results[1]) == [(1, 2.44, 100)]


def test_ties_go_to_the_movie_with_more_ratings_then_to_the_smaller_id():
    ratings = [(9, 4.0)] * 3 + [(7, 4.0)] * 3 + [(8, 4.0)] * 4 + [(6, 4.5)] * 3
    assert rows(rank_movies(frame(ratings))) == [(6, 4.5, 3), (8, 4.0, 4), (7, 4.0, 3), (9, 4.0, 3)]


def test_min_ratings_is_inclusive():
    ratings = [(1, 4.0)] * 3 + [(2, 5.0)] * 2
    assert rows(rank_movies(frame(ratings), min_ratings=3)) == [(1, 4.0, 3)]
    assert rows(rank_movies(frame(ratings), min_ratings=2)) == [(2, 5.0, 2), (1, 4.0, 3)]


def test_the_mean_of_all_in_bayes_counts_movies_below_the_minimum_too():
    ratings = [(1, 4.0), (1, 4.0), (2, 1.0)]  # mean of all 3.0
    assert rows(rank_movies(frame(ratings), 2, "bayes")) == [(1, 0.5 * 4.0 + 0.5 * 3.0, 2)]


def test_wilson_gives_the_published_lower_bound():
    # 8 of 10 in favour: 0.4902 to 0.9433 at 95 %
    ratings = [(1, 4.0)] * 8 + [(1, 3.5)] * 2
    [(_, score, _)] = rows(rank_movies(frame(ratings), 1, "wilson"))
    assert score == pytest.approx(0.4902, abs=5e-5)


def test_limit_keeps_the_best():
    ratings = [(movie, movie / 2) for movie in range(1, 11)]
    assert [movie for movie, _, _ in rows(rank_movies(frame(ratings), 1, limit=2))] == [10, 9]


@pytest.mark.parametrize("method", METHODS)
def test_no_ratings_give_an_empty_ranking_with_its_columns_and_types(method):
    for empty in (frame([]), pd.DataFrame({"movieId": [], "rating": []}, dtype=object)):
        rankings = rank_movies(empty, method=method)
        assert list(rankings.dtypes.astype(str).items()) == [
            ("movieId", "int64"),
            ("avg_rating", "float64"),
            ("num_ratings", "int64"),
        ]
        assert len(rankings) == 0


def test_other_columns_and_any_index_are_ignored():
    ratings = frame([(1, 4.0), (1, 3.0)]).assign(userId=[5, 6]).set_index("userId", drop=False)
    assert rows(rank_movies(ratings, 1)) == [(1, 3.5, 2)]


def test_the_ratings_are_left_as_they_were():
    ratings = frame([(2, 4.0), (1, 3.0)])
    before = ratings.copy(deep=True)
    rank_movies(ratings, 1)
    pd.testing.assert_frame_equal(ratings, before)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (pd.DataFrame({"movieId": [1]}), "need a column 'rating'"),
        (pd.DataFrame({"rating": [1.0]}), "need a column 'movieId'"),
        (pd.DataFrame({"movieId": [1.5], "rating": [1.0]}), "'movieId' must hold whole numbers"),
        (pd.DataFrame({"movieId": ["a"], "rating": [1.0]}), "'movieId' must hold whole numbers"),
        (pd.DataFrame({"movieId": [1], "rating": ["4.0"]}), "'rating' must hold numbers"),
        (pd.DataFrame({"movieId": [1], "rating": [True]}), "'rating' must hold numbers"),
        (pd.DataFrame({"movieId": [1, 2], "rating": [1.0, math.nan]}), "rating nan is not from 0.5 to 5.0"),
        (pd.DataFrame({"movieId": [1], "rating": [math.inf]}), "rating inf is not"),
        (pd.DataFrame({"movieId": [1], "rating": [0.0]}), "rating 0.0 is not"),
        (pd.DataFrame({"movieId": [1], "rating": [5.5]}), "rating 5.5 is not"),
        (pd.DataFrame({"movieId": [1], "rating": pd.array([pd.NA], "Float64")}), "is not from 0.5 to 5.0"),
    ],
)
def test_ratings_that_are_none_are_refused(ratings, message):
    with pytest.raises(ValueError, match=message):
        rank_movies(ratings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_ratings": 0}, "min_ratings must be at least 1, not 0"),
        ({"limit": 0}, "limit must be at least 1, not 0"),
        ({"method": "median"}, "method must be one of mean, bayes, wilson, not 'median'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rank_movies(frame([(1, 4.0)]), **arguments)


def test_importing_the_package_does_not_import_pandas():
    code = "import sys, movielens_rank; sys.exit('pandas' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there_and_an_unknown_one_is_an_attribute_error():
    import movielens_rank

    assert all(callable(getattr(movielens_rank, name)) for name in movielens_rank.__all__)
    with pytest.raises(AttributeError, match="no attribute 'rank_films'"):
        movielens_rank.rank_films  # noqa: B018


def test_type_checkers_and_python_see_the_same_public_names():
    import movielens_rank

    [block] = [node for node in ast.parse(Path(movielens_rank.__file__).read_text()).body if isinstance(node, ast.If)]
    for_type_checkers = {alias.asname: line.module for line in block.body for alias in line.names}
    assert for_type_checkers == {name: f"movielens_rank.{m}" for name, m in movielens_rank._MODULE_OF.items()}


def test_every_method_has_its_score():
    assert tuple(_SCORES) == METHODS
