"""The bench, with real processes on the smallest profile."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from rich.console import Console

from course import bench, images
from course.bench import one_profile, run_bench, task_overhead
from course.bench.figures import TaskOverhead
from course.cluster import choose
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


# --- what Airflow and an engine add to a task


def containers() -> list[str]:
    """List the containers of a bench, running or not, by the label that says whose they are."""
    command = ["docker", "ps", "--all", "--filter=label=course.stack", '--format={{.Label "course.stack"}}']
    every = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [name for name in every.split() if name.startswith("course-bench-")]


def namespaces() -> list[str]:
    """List the namespaces of a bench, but for those on their way out."""
    every = choose(None).get("namespaces")["items"]
    names = [one["metadata"]["name"] for one in every if one["status"]["phase"] == "Active"]
    return [name for name in names if name.startswith("course-bench-")]


def pods() -> list[str]:
    """List the task pods of a bench."""
    every = choose(None).kubectl("get", "pods", "--all-namespaces", "--selector=kubernetes_pod_operator=True")
    return [line for line in every.splitlines() if line.startswith("course-bench-")]


def only(dag_id: str, monkeypatch: pytest.MonkeyPatch) -> TaskOverhead:
    """Measure one version, one run."""
    monkeypatch.setattr(task_overhead, "ENGINES", {dag_id: task_overhead.ENGINES[dag_id]})
    [one] = task_overhead.measure_tasks(1, Console(quiet=True))
    assert one.dag_id == dag_id
    return one


def test_a_version_whose_engine_is_not_there_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    screen = io.StringIO()
    output = tmp_path / "bench.json"
    figures = run_bench(["tasks"], output, console=Console(file=screen, width=80), task_runs=1)
    assert json.loads(output.read_text()) == figures
    assert figures["profiles"] == []
    mixed, *without_engine = figures["tasks"]
    assert (mixed["dag_id"], mixed["runs"], mixed["not_measured"]) == ("01_mixed_operators", 1, None)
    assert mixed["bare_seconds"] > 0
    assert mixed["task_seconds"] > 0
    assert [version["dag_id"] for version in without_engine] == ["02_docker", "03_kubernetes"]
    for version, why in zip(without_engine, ("Docker engine: ", "install k"), strict=True):  # kubectl, or kind
        assert why in version["not_measured"]
        assert version["task_seconds"] is None
        assert f"{version['dag_id']} was not measured" in screen.getvalue()
    assert "…" not in screen.getvalue()


@pytest.mark.docker
def test_a_container_is_measured_with_airflow_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    one = only("02_docker", monkeypatch)
    assert (one.not_measured, one.runs) == (None, 1)
    for seconds in (one.process_seconds, one.bare_seconds, one.task_seconds):
        assert seconds is not None
        assert seconds > 0
    assert containers() == []


@pytest.mark.docker
def test_a_version_whose_task_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_REGISTRY", "127.0.0.1:1/")
    one = only("02_docker", monkeypatch)
    assert one.task_seconds is None
    assert one.not_measured is not None
    assert f"image 127.0.0.1:1/{images.tag('movielens-rank')} is not here and cannot be pulled" in one.not_measured


@pytest.mark.kubernetes
def test_a_pod_is_measured_with_airflow_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    one = only("03_kubernetes", monkeypatch)
    assert (one.not_measured, one.runs) == (None, 1)
    for seconds in (one.process_seconds, one.bare_seconds, one.task_seconds):
        assert seconds is not None
        assert seconds > 0
    assert namespaces() == []


@pytest.mark.parametrize(
    ("dag_id", "made", "left"),
    [
        pytest.param("02_docker", containers, containers, marks=pytest.mark.docker),
        pytest.param("03_kubernetes", pods, namespaces, marks=pytest.mark.kubernetes),
    ],
)
def test_a_bench_that_is_stopped_leaves_nothing(
    dag_id: str, made: Callable[[], list[str]], left: Callable[[], list[str]]
) -> None:
    code = f"""
import sys
from course import cli
from course.bench import task_overhead
task_overhead.ENGINES = {{"{dag_id}": task_overhead.ENGINES["{dag_id}"]}}
sys.argv = ["course", "bench", "tasks"]
cli.main()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as running:
        try:
            give_up = time.monotonic() + 60
            while not made():
                assert running.poll() is None, "it ended before its first task"
                assert time.monotonic() < give_up, "no task came"
            running.send_signal(signal.SIGTERM)
            assert running.wait(30) == 128 + signal.SIGTERM
        finally:
            running.kill()
    assert left() == []
