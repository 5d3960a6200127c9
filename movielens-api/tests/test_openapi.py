"""The OpenAPI document is true: schemathesis makes requests from it and compares the answers."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import requests
from movielens_api.endpoints import ENDPOINTS

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def run_schemathesis(service, folder, *options):
    """Bad and good requests to every documented path; each answer's status, type, headers and body are checked."""
    login = base64.b64encode(f"{service.user}:{service.password}".encode()).decode()
    return subprocess.run(
        [
            SCHEMATHESIS,
            "run",
            f"{service.url}/openapi.json",
            f"--header=Authorization: Basic {login}",
            "--max-examples=50",
            "--seed=1",
            "--no-color",
            *options,
        ],
        cwd=folder,  # it keeps a folder of its own where it runs
        env={**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
    )


def test_every_answer_is_a_documented_one(small, tmp_path):
    done = run_schemathesis(small, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Fuzzing" in done.stdout


def test_the_answers_of_the_fault_mode_are_documented_too(serve, generated, tmp_path):
    service = serve("--data", generated("small"), "--fault-rate", 0.5, "--fault-kinds", "429,500")
    done = run_schemathesis(
        service,
        tmp_path,
        "--phases=coverage",
        "--checks=status_code_conformance,content_type_conformance,"
        "response_headers_conformance,response_schema_conformance",
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_exactly_the_paths_that_the_root_lists_are_documented(small):
    document = requests.get(f"{small.url}/openapi.json", timeout=10).json()
    assert (
        set(document["paths"]) == {endpoint.path for endpoint in ENDPOINTS} == set(small.get("/").json()["endpoints"])
    )


def test_the_document_knows_which_paths_are_open(small):
    document = requests.get(f"{small.url}/openapi.json", timeout=10).json()
    for path, methods in document["paths"].items():
        is_open = requests.get(small.url + path, timeout=10).status_code == 200
        assert (methods["get"]["security"] == []) == is_open, path
