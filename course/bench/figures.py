"""What the bench measures. Times are seconds, memory is bytes; the JSON file has the same names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """One API at rest and at work."""

    memory_bytes: int  # of all its processes; memory that they share counts once
    page_seconds: float  # one page of `page_size` ratings: median over pages spread over all offsets
    page_size: int
    pages: int


@dataclass(frozen=True)
class Work:
    """One step over all ratings of a profile."""

    seconds: float  # of the whole process, median of the runs
    ratings_per_second: float
    peak_bytes: int  # of the process, the largest of the runs
    runs: int
    page_size: int | None = None  # where the step goes page by page
    estimated_from: str | None = None  # what was really measured, where all of it would take too long


@dataclass(frozen=True)
class Profile:
    """All figures of one profile. The rankings of rank-movies and DuckDB were compared row by row."""

    profile: str
    ratings: int
    ranked_movies: int
    serve: Service
    book_serve: Service
    fetch: list[Work]
    book_fetch: Work
    rank: Work
    book_rank: Work
    duckdb_rank: Work
    rankings_agree: bool


@dataclass(frozen=True)
class TaskOverhead:
    """One small ranking, by a DAG and without Airflow. Medians of the runs; None is what does not apply."""

    dag_id: str
    runs: int = 0  # of each way, alternating, after one that does not count
    process_seconds: float | None = None  # its command as a process of this machine
    bare_seconds: float | None = None  # its container or its pod, made and removed; DAG 01 has neither: its function
    task_seconds: float | None = None  # the duration of the task, as Airflow shows it
    not_measured: str | None = None  # why it could not be measured here
