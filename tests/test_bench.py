"""The bench, with real processes on the smallest profile."""

import io
import json
from pathlib import Path

import click
import pytest
from rich.console import Console

from course import bench
from course.bench import one_profile, run_bench
from course.embedded import generate_data


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str, Path]:
    """The figures of one small bench, what it showed, and its file."""
    output = tmp_path_factory.mktemp("bench") / "new" / "bench.json"
    screen = io.StringIO()
    figures = run_bench(["small"], output, console=Console(file=screen, width=80))
    return figures, screen.getvalue(), output


def test_the_bench_measures_every_step_of_a_profile(measured: tuple[dict, str, Path]) -> None:
    figures, _, output = measured
    assert json.loads(output.read_text()) == figures
    assert figures["machine"]["cpus"] >= 1
    [small] = figures["profiles"]
    assert (small["profile"], small["ratings"], small["rankings_agree"]) == ("small", 1000, True)
    assert small["ranked_movies"] > 0
    for service in (small["serve"], small["book_serve"]):
        assert service["memory_bytes"] > 10e6
        assert service["page_seconds"] > 0
    assert [work["page_size"] for work in small["fetch"]] == [1000, 10_000]
    works = [*small["fetch"], *(small[name] for name in ("book_fetch", "rank", "book_rank", "duckdb_rank"))]
    for work in works:
        assert work["ratings_per_second"] == pytest.approx(1000 / work["seconds"])
        assert work["peak_bytes"] > 10e6
        assert work["estimated_from"] is None


def test_the_table_fits_a_terminal_of_80_columns(measured: tuple[dict, str, Path]) -> None:
    _, screen, _ = measured
    for step in ("API, page of 100, ms", "fetch by 10000, k/s", "rank, peak MB"):
        assert step in screen
    assert "…" not in screen


def test_a_naive_fetch_that_is_cut_off_is_carried_on_to_all_ratings(tmp_path: Path) -> None:
    small = one_profile.ProfileBench("small", tmp_path)
    generate_data("small")
    with small.our_api() as api:
        whole = small.fetch(api, 1000)
    with small.book_api() as api:
        estimated = small.book_fetch(api, 0.001)
    assert whole.estimated_from is None
    assert estimated.estimated_from == "1 x 100 ratings"
    assert estimated.ratings_per_second == pytest.approx(1000 / estimated.seconds)
    assert estimated.peak_bytes > 10e6


def test_rankings_that_differ_end_the_bench(tmp_path: Path) -> None:
    compared = one_profile.ProfileBench("small", tmp_path)
    header = "movieId,avg_rating,num_ratings\n"
    compared.ours_csv.write_text(header + "1,4.0,3\n2,3.5,3\n")
    compared.duckdb_csv.write_text(header + "1,4,3\n2,3.5,3\n")
    assert compared.compare_rankings() == 2
    for other in ("1,4,3\n", "1,4,3\n2,3.5,4\n", "2,3.5,3\n1,4,3\n"):
        compared.duckdb_csv.write_text(header + other)
        with pytest.raises(click.ClickException, match="of the rankings is"):
            compared.compare_rankings()


def test_a_project_that_is_not_installed_is_named_with_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = one_profile.RANK_COMMAND.with_name("not-there")
    monkeypatch.setattr(bench, "RANK_COMMAND", missing)
    with pytest.raises(click.ClickException, match=r"`make images/movielens-rank/\.venv/\.run` does it"):
        run_bench(["small"])
