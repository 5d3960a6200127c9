"""One home for Airflow and the course, away from the learner's, and the real API for every test that crosses parts."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import click
import pytest
from rich.console import Console

REPO = Path(__file__).resolve().parent.parent

# Airflow reads its settings when it is first imported, so its home has to be named before any test module loads.
HOME = Path(tempfile.mkdtemp(prefix="course-tests-"))
for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]
os.environ |= {
    "COURSE_HOME": str(HOME),
    "AIRFLOW_HOME": str(HOME / "airflow"),
    "AIRFLOW__CORE__DAGS_FOLDER": str(REPO / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPO / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
}

from support.dag_runs import Place  # noqa: E402 (see above)
from support.required import cannot_run  # noqa: E402

from course import embedded, images  # noqa: E402
from course.cluster import choose  # noqa: E402
from course.doctor import check_cluster, check_engine  # noqa: E402
from course.settings import version  # noqa: E402

os.environ["COURSE_VERSION"] = version()  # as the course's own commands do, for the DAGs and for Compose


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone(what): needs the whole `machine` or `cluster`, to measure or to break it")
    config.addinivalue_line("markers", "docker: needs a Docker engine")
    config.addinivalue_line("markers", "kubernetes: needs a Kubernetes cluster, the one of kubectl's current context")


# What the suites of one `make test` share: locks, and which images the cluster has.
RUN = Path(os.environ.get("COURSE_TEST_RUN", HOME))
if RUN != HOME:
    (RUN / "clusters").mkdir(exist_ok=True)
    (HOME / "clusters").symlink_to(RUN / "clusters")
# Each suite shares what it uses with those beside it, and a test that is marked `alone` has it for itself.
LOCKS = {what: (RUN / f"{what}.lock").open("w") for what in ("machine", "cluster")}


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Keep the suites beside this one from building or loading the same images at the same time."""
    with (RUN / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests that have the machine for themselves to the end."""
    items.sort(key=lambda item: alone_on(item) == "machine")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take part in what the tests that were selected use."""
    fcntl.flock(LOCKS["machine"], fcntl.LOCK_SH)
    if any(item.get_closest_marker("kubernetes") for item in session.items):
        fcntl.flock(LOCKS["cluster"], fcntl.LOCK_SH)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Before a test that runs alone, wait until the suites beside this one have ended, or are waiting too."""
    if what := alone_on(item):
        fcntl.flock(LOCKS[what], fcntl.LOCK_EX)


def alone_on(item: pytest.Item) -> str | None:
    marker = item.get_closest_marker("alone")
    return marker.args[0] if marker else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with the reason, what this machine cannot run; fail instead where REQUIRE names it."""
    for need, why_not in (("docker", why_no_docker), ("kubernetes", why_no_kubernetes)):
        if item.get_closest_marker(need) and (reason := why_not()):
            cannot_run(need, reason)


@cache
def why_no_docker() -> str:
    """Return why no containers of the course can be run here; "" when they can. Brings the images up to date."""
    engine = check_engine()
    if engine.fix:
        return f"Docker engine: {engine.found}. {engine.fix}"
    try:
        with one_at_a_time():
            images.build(Console(quiet=True))
    except click.ClickException as error:
        return f"{error.message}\nWhere no registry can be reached, `make offline-images` makes the base images"
    return ""


@cache
def why_no_kubernetes() -> str:
    """Return why no pods can be run here; "" when they can. Brings the images to the nodes.

    A cluster that does not look like one on this machine is left alone, whatever context is the current one.
    """
    try:
        cluster = choose(None)
        if (finding := check_cluster()).fix:
            return str(finding)
        if why_not := why_no_docker():
            return f"{why_not} (it builds the images of the pods)"
        with one_at_a_time():
            cluster.load_images(Console(quiet=True))
    except click.ClickException as error:
        return error.message
    return ""


def pytest_unconfigure() -> None:
    """Remove the home."""
    shutil.rmtree(HOME)


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """A migrated metadata database."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="session")
def data() -> None:
    """The ratings of the default profile."""
    embedded.generate_data("100k")


@pytest.fixture(scope="session")
def api(data: None) -> Iterator[embedded.Api]:
    """The real API, serving the default profile."""
    with embedded.movielens_api("100k") as running:
        yield running


@pytest.fixture
def faulty_api(data: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[embedded.Api]:
    """The real API, failing for three requests in ten."""
    monkeypatch.setenv("API_FAULT_RATE", "0.3")
    monkeypatch.setenv("API_FAULT_SEED", "7")
    monkeypatch.setenv("API_FAULT_DELAY", "0.2")
    with embedded.movielens_api("100k") as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
