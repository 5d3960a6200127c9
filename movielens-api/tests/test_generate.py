"""What the generator promises about its data."""

from __future__ import annotations

import csv
import filecmp
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from movielens_api.columns import COLUMNS, open_dataset, read_movies
from movielens_api.generate import PERIOD_END, PERIOD_START, PROFILES, generate
from movielens_api.random_stream import RandomStream, argsort_high_bits


def columns(folder):
    return {name: np.load(folder / f"{name}.npy") for name in COLUMNS}


def gini(counts):
    """0 for equal counts, 1 for all in one hand: the mean difference of two counts over twice their mean."""
    ordered = np.sort(counts)
    ranks = np.arange(1, len(ordered) + 1)
    return 2 * (ranks * ordered).sum() / (len(ordered) * ordered.sum()) - (len(ordered) + 1) / len(ordered)


def month_of(timestamps):
    months = timestamps.astype("datetime64[s]").astype("datetime64[M]")
    return (months - np.datetime64("2019-01")).astype(int)


@pytest.fixture(scope="module", params=["small", "100k"])
def profile(request):
    return request.param


@pytest.fixture(scope="module")
def folder(profile, generated):
    return generated(profile)


def test_there_are_exactly_as_many_ratings_as_the_profile_says(profile, folder):
    wanted = {"small": 1_000, "100k": 100_000}[profile]
    assert {len(column) for column in columns(folder).values()} == {wanted}


def test_the_profiles_have_the_sizes_of_their_names():
    sizes = {name: profile.ratings for name, profile in PROFILES.items()}
    assert sizes == {"small": 1_000, "100k": 100_000, "1m": 1_000_000, "25m": 25_000_000}


def test_the_same_seed_gives_the_same_bytes_in_every_file(profile, folder, tmp_path):
    generate(profile, 1, tmp_path / "again")
    names = sorted(file.name for file in folder.iterdir())
    assert names == sorted(file.name for file in (tmp_path / "again").iterdir())
    assert filecmp.cmpfiles(folder, tmp_path / "again", names, shallow=False) == (names, [], [])


def test_another_seed_gives_other_ratings_and_movies(profile, folder, tmp_path):
    generate(profile, 2, tmp_path / "other")
    names = ["timestamp.npy", "userId.npy", "movieId.npy", "rating.npy", "movies.csv"]
    assert filecmp.cmpfiles(folder, tmp_path / "other", names, shallow=False)[0] == []


def test_rows_are_ordered_by_timestamp_then_user_then_movie(folder):
    data = columns(folder)
    order = np.lexsort((data["movieId"], data["userId"], data["timestamp"]))
    assert (order == np.arange(len(order))).all()


def test_ratings_are_half_stars_and_all_ten_occur(folder):
    assert set(columns(folder)["rating"].tolist()) == set(range(1, 11))


def test_every_user_has_at_least_twenty_ratings_and_some_have_many_more(profile, folder):
    counts = np.bincount(columns(folder)["userId"])[1:]
    assert counts.min() >= 20
    assert counts.max() >= (40 if profile == "small" else 500)


def test_no_user_rates_a_movie_twice(folder):
    data = columns(folder)
    pairs = data["userId"].astype(np.int64) << 32 | data["movieId"]
    assert len(np.unique(pairs)) == len(pairs)


def test_items_are_long_tailed(generated):
    counts = np.bincount(columns(generated("100k"))["movieId"])[1:]
    assert gini(counts) >= 0.6
    assert gini(counts[counts > 0]) >= 0.6


def test_every_month_from_2019_to_2023_has_ratings_and_there_are_more_later(folder):
    timestamps = columns(folder)["timestamp"]
    assert timestamps.min() >= PERIOD_START
    assert timestamps.max() < PERIOD_END
    per_month = np.bincount(month_of(timestamps), minlength=60)
    assert len(per_month) == 60
    assert per_month.min() > 0
    assert per_month[-12:].sum() > 1.5 * per_month[:12].sum()


@pytest.mark.parametrize(("profile_name", "at_least"), [("small", 1), ("100k", 10)])
def test_every_month_has_movies_with_three_ratings_to_rank(profile_name, at_least, generated):
    data = columns(generated(profile_name))
    month = month_of(data["timestamp"])
    ranked = [(np.bincount(data["movieId"][month == number]) >= 3).sum() for number in range(60)]
    assert min(ranked) >= at_least


def test_titles_are_unique_and_end_with_a_year_before_the_ratings(folder):
    titles = [title for _, title, _ in read_movies(folder / "movies.csv")]
    assert len(set(titles)) == len(titles)
    years = [int(re.fullmatch(r"[A-Z].* \((\d{4})\)", title)[1]) for title in titles]
    assert min(years) >= 1930
    assert max(years) <= 2018


def test_genres_are_different_names_with_pipes(folder):
    for _, _, genres in read_movies(folder / "movies.csv"):
        names = genres.split("|")
        assert genres == "(no genres listed)" or re.fullmatch(r"[A-Z][A-Za-z-]+(\|[A-Z][A-Za-z-]+)*", genres)
        assert len(set(names)) == len(names) <= 3


def test_movies_csv_is_in_movielens_form_and_covers_every_rated_movie(folder):
    with (folder / "movies.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows[0] == ["movieId", "title", "genres"]
    assert [int(row[0]) for row in rows[1:]] == list(range(1, len(rows)))
    assert columns(folder)["movieId"].max() < len(rows)


def test_dataset_json_counts_what_is_there(profile, folder):
    about = json.loads((folder / "dataset.json").read_text())
    data = columns(folder)
    assert (about["profile"], about["seed"], about["format"]) == (profile, 1, 1)
    assert about["ratings"] == len(data["rating"])
    assert about["users"] == len(np.unique(data["userId"]))
    assert about["movies"] == len(read_movies(folder / "movies.csv"))


@settings(max_examples=20)
@given(seed=st.integers(min_value=0, max_value=2**63))
def test_the_promises_hold_for_any_seed(seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any") / "data"
    generate("small", seed, folder)
    data = columns(folder)
    assert len(data["rating"]) == 1_000
    assert np.bincount(data["userId"])[1:].min() >= 20
    assert len(set(zip(data["userId"].tolist(), data["movieId"].tolist(), strict=True))) == 1_000
    assert (np.bincount(month_of(data["timestamp"]), minlength=60) > 0).all()


@given(st.lists(st.integers(min_value=0, max_value=2**64 - 1), min_size=1))
def test_argsort_high_bits_sorts_by_the_high_bits(keys):
    order = argsort_high_bits(np.array(keys, np.uint64))
    assert sorted(order.tolist()) == list(range(len(keys)))
    high = [keys[index] >> 32 for index in order.tolist()]
    assert high == sorted(high)


def test_the_random_numbers_have_their_distributions():
    stream = RandomStream(1)
    normal = stream.normal(100_000)
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    uniform = stream.uniform(100_000)
    assert 0 <= uniform.min() < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01


def test_100k_takes_less_than_two_seconds_with_imports(command, tmp_path):
    # Processor time: other processes of this machine do not count.
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    )
    arguments = [command, "generate", "--profile", "100k", "--output", str(tmp_path / "data")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    assert float(done.stdout.splitlines()[-1]) < 2


def test_a_generated_folder_opens(folder):
    dataset = open_dataset(folder)
    assert (len(dataset.ratings), len(dataset.movies)) == (dataset.about["ratings"], dataset.about["movies"])


def test_generating_the_same_again_keeps_the_folder_and_another_seed_replaces_it(command, tmp_path):
    def run(seed):
        arguments = ["generate", "--profile", "small", "--seed", str(seed), "--output", str(tmp_path / "data")]
        subprocess.run([command, *arguments], check=True, capture_output=True)
        return (tmp_path / "data").stat().st_ino, json.loads((tmp_path / "data/dataset.json").read_text())["seed"]

    first = run(1)
    assert run(1) == first
    assert run(2)[1] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_with_other_files_is_never_replaced(command, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = subprocess.run(
        [command, "generate", "--profile", "small", "--output", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_failed_generation_leaves_nothing(tmp_path):
    def fail(ratings):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate("small", 1, tmp_path / "data", fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--profile", "tiny", "--output", "x"], "'tiny'"),
        (["--seed", "-1", "--output", "x"], "--seed"),
        (["--profile", "small"], "--output"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(arguments, named, command, tmp_path):
    done = subprocess.run([command, "generate", *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_one_line_and_exit_code_1(command, tmp_path):
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "data"
    done = subprocess.run(
        [command, "generate", "--profile", "small", "--output", str(output)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("generating ")]) == 1
