"""Airflow's servers, for tests that need a scheduler: dag.test() knows no schedule, no limits, one task at a time."""

import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from course.processes import child

AIRFLOW = Path(sys.executable).with_name("airflow")


@contextmanager
def airflow_servers(env: dict[str, str], logs: Path) -> Iterator[dict[str, str]]:
    """Run API server, DAG processor and scheduler on the database that the tests share; yield their environment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = env | {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
    }
    with ExitStack() as stack:
        for server in ("api-server", "dag-processor", "scheduler"):
            log = stack.enter_context((logs / f"{server}.log").open("w"))
            stack.enter_context(child([AIRFLOW, server], env, log))
        yield env
        for log_file in logs.glob("*.log"):
            print(f"== {log_file.name}\n{log_file.read_text()[-3000:]}")  # shown when the test fails


def airflow(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Airflow's CLI."""
    return subprocess.run([AIRFLOW, *arguments], env=env, capture_output=True, text=True, check=False)
