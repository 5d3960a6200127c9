"""What a test needs and this machine does not have is a skip with its reason, or a failure where REQUIRE names it."""

import os
from typing import NoReturn

import pytest

REQUIRED = os.environ.get("REQUIRE", "").split(",")


def cannot_run(need: str, why: str) -> NoReturn:
    """Skip the test; fail it where `need` is required."""
    (pytest.fail if need in REQUIRED else pytest.skip)(why)
