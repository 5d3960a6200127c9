"""What stands in several places because the projects are independent of each other: the copies agree."""

import re

import pytest

from course.paths import DAGS, REPO
from course.rankings import Ranked

IMAGES = REPO / "images"
COLUMNS = ["pipeline", "interval_start", *Ranked._fields]


@pytest.mark.parametrize("path", ["src/movielens_{}/atomic_write.py", "tests/test_atomic_write.py"])
def test_fetch_and_rank_hold_the_same_atomic_write(path: str) -> None:
    of_fetch, of_rank = (
        (IMAGES / f"movielens-{task}" / path.format(task)).read_text().replace(f"movielens_{task}", "movielens_TASK")
        for task in ("fetch", "rank")
    )
    assert of_fetch == of_rank


def test_dag_01_makes_the_table_with_the_columns_that_the_course_reads() -> None:
    source = (DAGS / "01_mixed_operators.py").read_text()
    (table,) = re.findall(r"CREATE TABLE IF NOT EXISTS movie_rankings \((.*?PRIMARY KEY [^)]*)\)", source, re.DOTALL)
    assert re.findall(r"^ +([a-z_]+) [A-Z]", table, re.MULTILINE) == COLUMNS
    assert table.endswith("PRIMARY KEY (pipeline, interval_start, position")


def test_the_store_makes_the_table_with_the_columns_that_the_course_reads() -> None:
    source = (IMAGES / "movielens-store" / "src" / "movielens_store" / "store.py").read_text()
    assert re.findall(r'\bColumn\(\s*"([a-z_]+)"', source) == COLUMNS
    assert re.findall(r'\bColumn\(\s*"([a-z_]+)",[^\n]*primary_key=True', source) == COLUMNS[:3]
