"""The file .env: made once, readable by its owner only, never overwritten."""

import os
from pathlib import Path

import click
import pytest

from course import settings


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where .env will be; nothing of it is set in the environment."""
    for name in settings.MAKERS:
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
    made = [value for env in (first, settings.read_env()) for name, value in env.items() if name not in IDS]
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
