"""The file .env: made once, readable by its owner only, never overwritten but for the version of the checkout."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from support.required import cannot_run

from course import settings
from course.paths import REPO


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where .env will be; nothing of it is set in the environment."""
    for name in (*settings.MAKERS, "COURSE_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(settings, "ENV_FILE", tmp_path / ".env")
    return tmp_path / ".env"


def test_a_new_env_has_every_setting_and_is_for_its_owner_only(env_file: Path) -> None:
    assert settings.missing_settings() == list(settings.MAKERS)
    assert settings.write_env() == list(settings.MAKERS)
    assert settings.missing_settings() == []
    assert env_file.stat().st_mode & 0o777 == 0o600


def test_no_two_secrets_are_the_same(env_file: Path) -> None:
    settings.write_env()
    first = settings.read_env()
    env_file.unlink()
    settings.write_env()
    made = [env[name] for env in (first, settings.read_env()) for name in settings.MAKERS if name not in IDS]
    assert len(set(made)) == len(made) == 2 * (len(settings.MAKERS) - len(IDS))
    assert all(len(value) >= 32 for value in made)


IDS = {"AIRFLOW_UID", "DOCKER_GID"}


def test_what_is_in_env_stays_and_only_what_is_missing_is_added(env_file: Path) -> None:
    mine = "# mine\nMYSQL_PASSWORD=chosen\nAIRFLOW_PORT=8081\nJWT_SECRET="
    env_file.write_text(mine)
    added = settings.write_env(BASE_IMAGE="course/base:trixie")
    assert env_file.read_text().startswith(mine + "\n")
    assert set(added) == settings.MAKERS.keys() - {"MYSQL_PASSWORD"} | {"BASE_IMAGE"}
    assert settings.setting("JWT_SECRET")
    before = env_file.read_bytes()
    assert settings.write_env(BASE_IMAGE="another") == []
    assert env_file.read_bytes() == before


def test_a_setting_is_the_one_that_compose_takes(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.setting("AIRFLOW_PORT") == "8080"
    env_file.write_text("AIRFLOW_PORT='8081'\n")
    assert settings.setting("AIRFLOW_PORT") == "8081"
    monkeypatch.setenv("AIRFLOW_PORT", "8082")
    assert settings.setting("AIRFLOW_PORT") == "8082"
    monkeypatch.setenv("AIRFLOW_PORT", "")  # set to nothing hides .env, and the default of the file counts
    assert settings.setting("AIRFLOW_PORT") == "8080"


def test_airflow_never_runs_as_root(env_file: Path) -> None:
    settings.write_env()
    assert settings.read_env()["AIRFLOW_UID"] == str(os.getuid() or 50000)


def test_made_passwords_fit_where_they_stand_and_others_are_named(env_file: Path) -> None:
    settings.write_env()
    settings.check_passwords()
    env_file.write_text("MYSQL_PASSWORD=p@ss\n")
    with pytest.raises(click.ClickException, match=r"MYSQL_PASSWORD in \.env may have letters, digits") as refused:
        settings.check_passwords()
    assert "p@ss" not in refused.value.message


# --- the version


def stale(env_file: Path) -> str:
    """Write a .env that an older version of the course made; return its lines but for that of the version."""
    others = "MYSQL_PASSWORD=chosen\n"
    env_file.write_text(f"COURSE_VERSION=0.0.1 {settings.MANAGED}\n{others}")
    return others


def test_the_version_in_env_follows_the_checkout(env_file: Path) -> None:
    others = stale(env_file)
    assert settings.version() == settings.checkout_version()
    settings.refresh_version()
    assert settings.read_env()["COURSE_VERSION"] == settings.checkout_version()
    assert env_file.read_text().endswith(others)
    before = env_file.stat()
    settings.refresh_version()
    assert env_file.stat() == before  # it is not written again


def test_an_env_without_a_version_gets_it_and_no_env_is_made_for_it(env_file: Path) -> None:
    settings.refresh_version()
    assert not env_file.exists()
    env_file.write_text("MYSQL_PASSWORD=chosen\n")
    settings.refresh_version()
    assert settings.read_env() == {"MYSQL_PASSWORD": "chosen", "COURSE_VERSION": settings.checkout_version()}


def test_a_version_that_the_learner_chose_stays(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("COURSE_VERSION=0.2.0-test\n")
    settings.write_env()
    assert "COURSE_VERSION=0.2.0-test\n" in env_file.read_text()
    assert settings.version() == "0.2.0-test"
    monkeypatch.setenv("COURSE_VERSION", "0.3.0-test")
    assert settings.version() == "0.3.0-test"


def test_compose_runs_the_images_of_the_version_in_env(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the version has a remark behind it, which Compose must not take for a part of the version."""
    if not shutil.which("docker"):
        cannot_run("docker", "no docker command")
    settings.write_env()
    for chosen in (settings.checkout_version(), "0.2.0-test"):
        if chosen != settings.checkout_version():
            env_file.write_text(env_file.read_text() + f"COURSE_VERSION={chosen}\n")
        command = ["docker", "compose", "--env-file", env_file, "--profile", "*", "config", "--images"]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
        tags = {
            image.partition(":")[2] for image in done.stdout.split() if "/airflow-" in image or "/movielens-" in image
        }
        assert tags == {chosen}


def test_make_version_prints_the_version_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_VERSION", "0.2.0-test")
    command = ["make", "--silent", "--directory", str(REPO), "version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "0.2.0-test\n"


def test_the_version_stands_in_few_places() -> None:
    """The one is pyproject.toml. The manifests have a copy, for those who apply them by hand."""
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout.split()
    own = [path for path in listed if not path.startswith(("images/movielens-", "movielens-api/", "plugins/"))]
    version = settings.checkout_version()
    found = [
        path
        for path in own
        if not re.search(r"requirements[a-z-]*\.txt$|CHANGELOG", path)
        and re.search(rf"(?<![\d.]){re.escape(version)}(?![\d.])", (REPO / path).read_text(errors="replace"))
    ]
    assert found == ["k8s/images/kustomization.yaml", "pyproject.toml"]
