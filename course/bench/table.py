"""The figures as tables: ours, the baseline's and DuckDB's side by side, with words; and what a task is made of."""

from rich import box
from rich.console import Console
from rich.table import Table

from course.bench.figures import Profile, TaskOverhead, Work


def print_profile(console: Console, figures: Profile) -> None:
    """Show the figures of one profile; a figure that was estimated is marked, and said below to be so."""
    title = f"{figures.profile}: {figures.ratings:,} ratings, {figures.ranked_movies:,} movies ranked"
    table = Table(title=title, caption="k/s: thousand ratings a second", box=box.SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in ("ours", "naive", "we are", "DuckDB", "we are"):
        table.add_column(column, justify="right", no_wrap=True)

    ours, book = figures.serve, figures.book_serve
    table.add_row(
        f"API, page of {ours.page_size}, ms",
        f"{ours.page_seconds * 1e3:.1f}",
        f"{book.page_seconds * 1e3:.1f}",
        faster(book.page_seconds / ours.page_seconds),
    )
    table.add_row(
        "API, memory, MB",
        _megabytes(ours.memory_bytes),
        _megabytes(book.memory_bytes),
        smaller(ours.memory_bytes, book.memory_bytes),
        end_section=True,
    )
    for work in figures.fetch:
        _add_work(table, f"fetch by {work.page_size}", work, figures.book_fetch, None)
    _add_work(table, "rank", figures.rank, figures.book_rank, figures.duckdb_rank)
    console.print(table)

    console.print(f"The naive way fetches by {figures.book_fetch.page_size}.")
    for step, work in (("fetch", figures.book_fetch), ("rank", figures.book_rank)):
        if work.estimated_from:
            console.print(f"~ the naive {step} is estimated from {work.estimated_from}: all of it was not run.")
    console.print("The rankings of rank-movies and DuckDB are the same, row by row.")


def _add_work(table: Table, step: str, ours: Work, book: Work, duckdb: Work | None) -> None:
    def about(work: Work) -> str:
        return "~" if work.estimated_from else ""

    speeds = [_thousands(ours), about(book) + _thousands(book)]
    speeds.append(faster(ours.ratings_per_second / book.ratings_per_second))
    peaks = [_megabytes(ours.peak_bytes), about(book) + _megabytes(book.peak_bytes)]
    peaks.append(smaller(ours.peak_bytes, book.peak_bytes))
    if duckdb:
        speeds += [_thousands(duckdb), faster(ours.ratings_per_second / duckdb.ratings_per_second)]
        peaks += [_megabytes(duckdb.peak_bytes), smaller(ours.peak_bytes, duckdb.peak_bytes)]
    table.add_row(f"{step}, k/s", *speeds)
    table.add_row(f"{step}, peak MB", *peaks, end_section=True)


def print_page_growth(console: Console, profiles: list[Profile]) -> None:
    """Return how much dearer a page becomes from the smallest profile to the largest."""
    if len(profiles) < 2:
        return
    small, large = min(profiles, key=lambda p: p.ratings), max(profiles, key=lambda p: p.ratings)
    ours = large.serve.page_seconds / small.serve.page_seconds
    book = large.book_serve.page_seconds / small.book_serve.page_seconds
    console.print(
        f"From {small.profile} to {large.profile} a page takes {ours:.1f} times as long from our API, "
        f"{book:.1f} times as long the naive way."
    )


def print_tasks(console: Console, tasks: list[TaskOverhead]) -> None:
    """Show how the time of a task adds up, from left to right, and why a version was not measured."""
    title = f"One small ranking, seconds: medians of {max(one.runs for one in tasks)}"
    table = Table(title=title, box=box.SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in ("process", "+ engine", "= bare", "+ Airflow", "= task"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in tasks:
        process, bare, task = one.process_seconds, one.bare_seconds, one.task_seconds
        steps = [_seconds(process), _seconds(bare, process), _seconds(bare), _seconds(task, bare), _seconds(task)]
        table.add_row(one.dag_id, *steps)
    console.print(table)

    for one in tasks:
        if one.not_measured:
            console.print(f"{one.dag_id} was not measured. {one.not_measured}", highlight=False, markup=False)
    console.print(
        "process: the command, here. bare: the function of DAG 01, which finds pandas loaded (a worker loads it for "
        "each task); a container; a pod. task: by Airflow, without the start of a worker. That comes on top, for all "
        "alike: a process with Celery, a pod with KubernetesExecutor. DAG 03's task looks at its pod once a second."
    )


def faster(ratio: float) -> str:
    """Return a ratio of speeds in words."""
    return f"{_factor(ratio)} faster" if ratio >= 1 else f"{_factor(1 / ratio)} slower"


def smaller(ours: int, theirs: int) -> str:
    """Return a ratio of sizes in words."""
    return f"{_factor(theirs / ours)} less" if theirs >= ours else f"{_factor(ours / theirs)} more"


def _factor(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x"


def _thousands(work: Work) -> str:
    thousands = work.ratings_per_second / 1e3
    return f"{thousands:,.0f}" if thousands >= 10 else f"{thousands:.1f}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"


def _seconds(seconds: float | None, more_than: float | None = 0) -> str:
    if seconds is None or more_than is None:
        return "-"
    return f"{seconds - more_than:+.2f}" if more_than else f"{seconds:.2f}"
