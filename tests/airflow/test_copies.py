"""Two projects hold a copy of one module, since neither may depend on the other: the copies are the same."""

import pytest

from course.paths import REPO

IMAGES = REPO / "images"


@pytest.mark.parametrize("path", ["src/movielens_{}/atomic_write.py", "tests/test_atomic_write.py"])
def test_fetch_and_rank_hold_the_same_atomic_write(path):
    of_fetch, of_rank = (
        (IMAGES / f"movielens-{task}" / path.format(task)).read_text().replace(f"movielens_{task}", "movielens_TASK")
        for task in ("fetch", "rank")
    )
    assert of_fetch == of_rank
