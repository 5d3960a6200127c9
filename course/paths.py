"""Paths: the parts of the repo, and what a run leaves behind (all of it in .course, which git ignores)."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
DAGS = REPO / "dags"
PLUGINS = REPO / "plugins"
API_COMMAND = REPO / "movielens-api" / ".venv" / "bin" / "movielens-api"

HOME = Path(os.environ.get("COURSE_HOME", REPO / ".course")).resolve()
AIRFLOW_HOME = HOME / "airflow"
LOGS = HOME / "logs"
RESULTS = HOME / "data"  # what /data is in a container: ratings/ and rankings/
DATABASE = HOME / "movies.db"


def movielens_data(profile: str) -> Path:
    """Return the folder of the generated data of one profile."""
    return HOME / "movielens" / profile


def shown(path: Path) -> str:
    """Return a path as a learner in the repo would type it."""
    return str(path.relative_to(REPO)) if path.is_relative_to(REPO) else str(path)
