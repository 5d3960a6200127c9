"""DockerRegistryHook with the real engine and registry, behind passwords, tokens and TLS, and with hostile servers."""

import base64
import gzip
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.docker.hooks.docker import DockerHook
from airflow.sdk import Connection
from docker.errors import APIError
from docker.errors import ImageNotFound as NoSuchImage
from docker_registry.api import (
    BODY_LIMIT,
    AccessDenied,
    BadAnswer,
    DigestMismatch,
    DockerRegistryError,
    ImageNotFound,
    InvalidReference,
    LoginRefused,
    PlatformNotFound,
    Registry,
    RegistrySettingsError,
    RegistryUnavailable,
    RepositoryNotFound,
    TagNotFound,
)
from docker_registry.hook import DockerRegistryHook, EngineError, InvalidArchive, PushFailed
from support.docker_engine import Engine, engine
from support.registry_servers import (
    JSON_KEY,
    PASSWORD,
    Reply,
    Request,
    RunningRegistry,
    make_certificate,
    registry_with_passwords,
    registry_with_tokens,
    reply,
    serve,
    sha256,
    start_registry,
)

from course.paths import PLUGINS

MakeHook = Callable[..., DockerRegistryHook]
SaveImage = Callable[..., Path]


# --- servers


@pytest.fixture(scope="module")
def docker_engine() -> Iterator[Engine]:
    with engine() as one:
        yield one
        for image in one.client.images.list(filters={"label": f"course.test={one.name}"}):
            one.client.images.remove(image.id, force=True)


@pytest.fixture(scope="module")
def registry(docker_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> RunningRegistry:
    return registry_with_passwords(docker_engine, tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def read_only(docker_engine: Engine, registry: RunningRegistry) -> RunningRegistry:
    """The same images, in a registry that refuses what is pushed."""
    settings = {"REGISTRY_STORAGE_MAINTENANCE_READONLY": '{"enabled": true}'}
    address = start_registry(docker_engine, registry.volume, {}, **settings)
    return RunningRegistry(address, registry.volume, "", "")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_registry(docker_engine: Engine, certificate: Path) -> RunningRegistry:
    volume = docker_engine.volume("tls")
    settings = {
        "REGISTRY_HTTP_TLS_CERTIFICATE": "/certificates/registry.pem",
        "REGISTRY_HTTP_TLS_KEY": "/certificates/registry.key",
    }
    files = {"registry.pem": certificate, "registry.key": certificate.with_suffix(".key")}
    return RunningRegistry(start_registry(docker_engine, volume, files, **settings), volume, "", "")


@pytest.fixture(scope="module")
def token_registry(docker_engine: Engine, certificate: Path) -> Iterator[RunningRegistry]:
    with registry_with_tokens(docker_engine, certificate) as one:
        yield one


# --- hooks and images


@pytest.fixture
def make_hook(monkeypatch: pytest.MonkeyPatch) -> MakeHook:
    """Make a hook for a connection with these fields. What is not a field of a connection is the hook's."""
    number = iter(range(1000))

    def make(
        form: str = "json", docker_url: str | None = None, retries: int = 1, **fields: object
    ) -> DockerRegistryHook:
        conn_id = f"registry_{next(number)}"
        fields = {"conn_type": "docker_registry"} | fields | {"extra": json.dumps(fields.get("extra", {}))}
        connection = Connection(conn_id=conn_id, **fields)
        value = connection.as_json() if form == "json" else connection.get_uri()
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", value)
        return DockerRegistryHook(registry_conn_id=conn_id, docker_url=docker_url, timeout=10, retries=retries)

    return make


@pytest.fixture
def save_image(docker_engine: Engine, tmp_path: Path) -> SaveImage:
    """Save images of one small file each into one archive, and take them from the engine again."""

    def save(*contents: str, name: str = "image.tar", keep: bool = False) -> Path:
        ids = []
        for content in contents:
            layer = io.BytesIO()
            with tarfile.open(fileobj=layer, mode="w") as archive:
                entry = tarfile.TarInfo("content")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content.encode()))
            label = f'LABEL course.test="{docker_engine.name}"'
            said = docker_engine.client.api.import_image_from_data(layer.getvalue(), changes=[label])
            ids.append(json.loads(said.strip().splitlines()[-1])["status"])
        path = tmp_path / name
        subprocess.run(["docker", "save", "--output", str(path), *ids], check=True)  # noqa: S607
        for one in [] if keep else ids:
            docker_engine.client.images.remove(one, force=True)
        return path

    return save


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository for each test."""
    return f"course/{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"


def line(error: BaseException) -> str:
    """Return the message of an error, which has one line, and no password wherever it may be printed."""
    everything = "".join(traceback.format_exception(error))
    for secret in (PASSWORD, JSON_KEY, "MIIEv", "-wrong-one"):
        assert secret not in everything
    for login in ("course", "_json_key", "reader"):
        for password in (PASSWORD, JSON_KEY):
            assert base64.b64encode(f"{login}:{password}".encode()).decode() not in everything
    assert "\n" not in str(error)
    return str(error)


needs_engine = pytest.mark.docker


# --- the real registry


@needs_engine
def test_a_loaded_image_can_be_listed_found_and_pulled_by_its_digest(
    registry: RunningRegistry,
    make_hook: MakeHook,
    save_image: SaveImage,
    repository: str,
    docker_engine: Engine,
) -> None:
    hook = make_hook(**registry.connection())
    digest = hook.load_image(repository=repository, tag="1.0", image_path=save_image("one"))
    assert hook.get_image_digest(repository=repository, tag="1.0") == digest
    assert hook.get_image_digest(repository=repository, tag=digest) == digest
    assert repository in hook.list_repositories()
    assert hook.list_tags(repository) == ["1.0"]
    assert hook.image_exists(repository, "1.0")
    assert not hook.image_exists(repository, "1.1")
    assert not hook.image_exists("course/nothing", "1.0")
    name = f"{registry.address}/{repository}"
    docker_engine.client.images.remove(f"{name}:1.0")
    login = {"username": registry.login, "password": registry.password}
    pulled = docker_engine.client.images.pull(name, tag=digest, auth_config=login)
    assert pulled.attrs["RepoDigests"] == [f"{name}@{digest}"]
    assert pulled.labels == docker_engine.labels


@needs_engine
def test_an_archive_loads_compressed_too_and_by_the_names_in_it(
    registry: RunningRegistry,
    make_hook: MakeHook,
    save_image: SaveImage,
    repository: str,
    docker_engine: Engine,
) -> None:
    hook = make_hook(**registry.connection())
    first = save_image("named", keep=True)
    digest = hook.load_image(repository, "1.0", first)
    named = first.with_name("named.tar")
    tags = [f"{registry.address}/{repository}:1.0", f"{docker_engine.name}:other"]
    docker_engine.client.api.tag(tags[0], docker_engine.name, "other")
    subprocess.run(["docker", "save", "--output", str(named), *tags], check=True)  # noqa: S607
    named.write_bytes(gzip.compress(named.read_bytes()))
    assert hook.load_image(repository, "1.1", named) == digest
    assert hook.list_tags(repository) == ["1.0", "1.1"]


@needs_engine
def test_a_deleted_image_is_gone_with_all_its_tags_and_with_nothing_else(
    registry: RunningRegistry, make_hook: MakeHook, save_image: SaveImage, repository: str
) -> None:
    hook = make_hook(**registry.connection())
    gone = hook.load_image(repository, "gone", save_image("gone"))
    assert hook.load_image(repository, "also-gone", save_image("gone", keep=True)) != ""
    kept = hook.load_image(repository, "kept", save_image("kept"))
    for digest in {gone, hook.get_image_digest(repository, "also-gone")}:
        hook.delete_image(repository, digest)
    assert hook.get_image_digest(repository, "kept") == kept
    assert not hook.image_exists(repository, "gone")
    assert not hook.image_exists(repository, "also-gone")
    with pytest.raises(ImageNotFound) as caught:
        hook.delete_image(repository, gone)
    assert line(caught.value) == f"registry {registry.address}, repository {repository}, digest {gone}: " + (
        "no such image in the repository"
    )
    hook.delete_image(repository, kept)
    assert hook.list_tags(repository) == []


@needs_engine
def test_unknown_repositories_and_tags_are_told_apart(
    registry: RunningRegistry, make_hook: MakeHook, save_image: SaveImage, repository: str
) -> None:
    hook = make_hook(**registry.connection())
    hook.load_image(repository, "1.0", save_image("known"))
    with pytest.raises(TagNotFound) as no_tag:
        hook.get_image_digest(repository, "2.0")
    assert line(no_tag.value) == (
        f"registry {registry.address}, repository {repository}, tag 2.0: the repository has no such tag"
    )
    for ask in (
        lambda: hook.get_image_digest("course/nothing", "1.0"),
        lambda: hook.list_tags("course/nothing"),
        lambda: hook.delete_image("course/nothing", sha256(b"")),
    ):
        with pytest.raises(RepositoryNotFound) as no_repository:
            ask()
        where = f"registry {registry.address}, repository course/nothing: no such repository"
        assert line(no_repository.value) == where


@needs_engine
@pytest.mark.parametrize("form", ["json", "uri"])
def test_a_wrong_login_is_refused_by_every_method_and_shown_by_none(
    form: str,
    registry: RunningRegistry,
    make_hook: MakeHook,
    save_image: SaveImage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    archive = save_image("never pushed")
    wrong_password = {"login": "course", "password": PASSWORD + "-wrong-one"}
    for wrong in (wrong_password, {"login": "nobody", "password": PASSWORD}, {}):
        hook = make_hook(form, host=registry.address, **wrong)
        for ask in (
            hook.list_repositories,
            lambda hook=hook: hook.list_tags("course/x"),
            lambda hook=hook: hook.get_image_digest("course/x", "1"),
            lambda hook=hook: hook.image_exists("course/x", "1"),
            lambda hook=hook: hook.delete_image("course/x", sha256(b"")),
            lambda hook=hook: hook.load_image("course/x", "1", archive),
        ):
            with pytest.raises(LoginRefused) as refused:
                ask()
            assert line(refused.value).startswith(f"registry {registry.address}")
        works, message = hook.test_connection()
        assert not works
        assert message.startswith(f"registry {registry.address}: ")
    assert "-wrong-one" not in caplog.text
    assert PASSWORD not in caplog.text


@needs_engine
def test_a_failed_push_leaves_the_old_tag_in_the_registry_and_in_the_engine(
    registry: RunningRegistry,
    read_only: RunningRegistry,
    make_hook: MakeHook,
    save_image: SaveImage,
    repository: str,
    docker_engine: Engine,
) -> None:
    old = make_hook(**registry.connection()).load_image(repository, "1.0", save_image("old"))
    name = f"{read_only.address}/{repository}"
    before = docker_engine.client.images.pull(name, tag="1.0").id
    hook = make_hook(host=read_only.address)
    assert hook.get_image_digest(repository, "1.0") == old
    for tag in ("1.0", "2.0"):
        with pytest.raises(PushFailed) as failed:
            hook.load_image(repository, tag, save_image("new"))
        where = f"registry {read_only.address}, repository {repository}, tag {tag}: "
        assert line(failed.value).startswith(f"{where}no push of {name}:{tag}: ")
    assert hook.get_image_digest(repository, "1.0") == old
    assert hook.list_tags(repository) == ["1.0"]
    assert docker_engine.client.images.get(f"{name}:1.0").id == before
    with pytest.raises(NoSuchImage):
        docker_engine.client.images.get(f"{name}:2.0")


@needs_engine
def test_what_is_no_archive_of_one_image_is_named_and_not_pushed(
    registry: RunningRegistry, make_hook: MakeHook, save_image: SaveImage, repository: str, tmp_path: Path
) -> None:
    hook = make_hook(**registry.connection())
    good = save_image("good").read_bytes()
    (tmp_path / "text").write_text("FROM scratch\n")
    (tmp_path / "cut.tar").write_bytes(good[: len(good) // 2])
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(good)[:90])
    for name, content in (
        ("none.tar", b"[]"),
        ("nonsense.tar", b"[[["),
        ("broken.tar", b'[{"Config": "missing.json", "RepoTags": null, "Layers": []}]'),
    ):
        with tarfile.open(tmp_path / name, "w") as archive:
            entry = tarfile.TarInfo("manifest.json")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with tarfile.open(tmp_path / "export.tar", "w") as archive:
        archive.add(__file__, "etc/passwd")
    save_image("one", "two", name="two.tar")
    for name, why in (
        ("missing.tar", "does not exist"),
        ("", "is not a file"),
        ("text", "is not an archive of an image"),
        ("cut.tar", ""),
        ("cut.tar.gz", ""),
        ("none.tar", "holds no image"),
        ("nonsense.tar", "is not an archive of an image"),
        ("broken.tar", ""),
        ("export.tar", "has no manifest.json"),
        ("two.tar", "holds 2 images, and a tag stands for one"),
    ):
        path = tmp_path / name
        with pytest.raises(InvalidArchive) as invalid:
            hook.load_image(repository, "1.0", path)
        message = line(invalid.value)
        assert message.startswith(f"registry {registry.address}, repository {repository}, tag 1.0: "), message
        assert str(path) in message
        assert why in message
    assert not hook.image_exists(repository, "1.0")


@needs_engine
@pytest.mark.parametrize(
    "index_type",
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"],
)
def test_an_index_has_a_digest_and_each_of_its_platforms_has_one(
    index_type: str, registry: RunningRegistry, make_hook: MakeHook, repository: str
) -> None:
    kind = "oci" if "oci" in index_type else "docker"
    types = {
        "oci": ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"),
        "docker": (
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.container.image.v1+json",
        ),
    }
    manifest_type, config_type = types[kind]
    entries, digests = [], {}
    for architecture, variant in (("amd64", None), ("arm64", "v8"), ("arm", "v6"), ("arm", "v7")):
        platform = {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})
        config = json.dumps(platform | {"rootfs": {"type": "layers", "diff_ids": []}}).encode()
        config_digest = registry.put_blob(repository, config)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": manifest_type,
                "config": {"mediaType": config_type, "size": len(config), "digest": config_digest},
                "layers": [],
            }
        ).encode()
        digest = sha256(manifest)
        registry.put(f"/v2/{repository}/manifests/{digest}", manifest, **{"Content-Type": manifest_type})
        entries.append({"mediaType": manifest_type, "size": len(manifest), "digest": digest, "platform": platform})
        digests["/".join(platform.values())] = digest
    index = json.dumps({"schemaVersion": 2, "mediaType": index_type, "manifests": entries}).encode()
    registry.put(f"/v2/{repository}/manifests/1.0", index, **{"Content-Type": index_type})
    hook = make_hook(**registry.connection())
    assert hook.get_image_digest(repository, "1.0") == sha256(index)
    expected = {
        "linux/amd64": digests["linux/amd64"],
        "linux/arm64": digests["linux/arm64/v8"],
        "linux/arm64/v8": digests["linux/arm64/v8"],
        "linux/arm/v7": digests["linux/arm/v7"],
        "linux/arm": digests["linux/arm/v6"],
    }
    for platform, digest in expected.items():
        assert hook.get_image_digest(repository, "1.0", platform=platform) == digest
    for platform in ("linux/s390x", "windows/amd64", "linux/arm/v5", "linux/am"):
        with pytest.raises(PlatformNotFound) as missing:
            hook.get_image_digest(repository, "1.0", platform)
        offered = "linux/amd64, linux/arm64/v8, linux/arm/v6, linux/arm/v7"
        assert line(missing.value).endswith(f", tag 1.0: not made for {platform}, but for {offered}")
    # An image for one platform has no index: its configuration says for which.
    one = digests["linux/arm64/v8"]
    assert hook.get_image_digest(repository, one, "linux/arm64") == one
    with pytest.raises(PlatformNotFound, match="not made for linux/amd64, but for linux/arm64/v8"):
        hook.get_image_digest(repository, one, "linux/amd64")


@needs_engine
def test_a_list_of_many_pages_has_every_name_once(registry: RunningRegistry) -> None:
    kind = "application/vnd.oci.image.index.v1+json"
    content = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": []}).encode()
    for number in range(5):
        registry.put_blob(f"paged/{number}", b"{}")  # the catalog of this registry has no repository without one
        registry.put(f"/v2/paged/{number}/manifests/1", content, **{"Content-Type": kind})
    url = f"http://{registry.address}"
    whole = Registry(url, registry.login, registry.password).repositories()
    assert [name for name in whole if name.startswith("paged/")] == [f"paged/{number}" for number in range(5)]
    for size in (1, 2, len(whole)):
        assert Registry(url, registry.login, registry.password, page_size=size).repositories() == whole


@needs_engine
def test_the_same_connection_serves_the_hook_of_the_docker_provider(
    registry: RunningRegistry, make_hook: MakeHook
) -> None:
    url = os.environ.get("DOCKER_HOST", "unix://var/run/docker.sock")
    host, _, port = registry.address.partition(":")
    for fields in ({"conn_type": "docker"}, {"conn_type": "docker_registry"}, {"host": host, "port": int(port)}):
        hook = make_hook(**registry.connection() | fields)
        assert hook.test_connection() == (True, f"registry {registry.address}: logged in as course")
        DockerHook(docker_conn_id=hook.registry_conn_id, base_url=url).api_client.close()
    wrong = make_hook(**registry.connection() | {"password": "wrong"})
    with pytest.raises(APIError, match="401 Unauthorized"):
        DockerHook(docker_conn_id=wrong.registry_conn_id, base_url=url).api_client.close()


# --- tokens, JSON keys, TLS


@needs_engine
@pytest.mark.parametrize("form", ["json", "uri"])
def test_a_json_key_of_many_lines_survives_the_forms_of_a_connection(
    form: str,
    registry: RunningRegistry,
    token_registry: RunningRegistry,
    make_hook: MakeHook,
    save_image: SaveImage,
    repository: str,
) -> None:
    for one in (registry, token_registry):
        hook = make_hook(form, host=f"http://{one.address}", login="_json_key", password=JSON_KEY)
        assert hook.test_connection() == (True, f"registry {one.address}: logged in as _json_key")
        digest = hook.load_image(repository, "1.0", save_image("by key"))
        assert hook.get_image_digest(repository, "1.0") == digest
        assert hook.list_tags(repository) == ["1.0"]
        assert repository in hook.list_repositories()
        hook.delete_image(repository, digest)
    assert {request.login for request in token_registry.asked} >= {("_json_key", JSON_KEY)}


@needs_engine
def test_a_login_that_may_only_pull_is_told_so_when_it_pushes_or_deletes(
    token_registry: RunningRegistry, make_hook: MakeHook, save_image: SaveImage, repository: str
) -> None:
    digest = make_hook(**token_registry.connection()).load_image(repository, "1.0", save_image("first"))
    reader = make_hook(host=token_registry.address, login="reader", password=PASSWORD)
    assert reader.get_image_digest(repository, "1.0") == digest
    for ask in (
        lambda: reader.load_image(repository, "1.0", save_image("second")),
        lambda: reader.delete_image(repository, digest),
        reader.list_repositories,
    ):
        with pytest.raises(AccessDenied) as denied:
            ask()
        assert line(denied.value).startswith(f"registry {token_registry.address}")
    assert reader.get_image_digest(repository, "1.0") == digest


@needs_engine
def test_a_token_server_that_refuses_is_named_and_its_words_are_shown_without_the_password(
    token_registry: RunningRegistry, make_hook: MakeHook
) -> None:
    hook = make_hook(host=token_registry.address, login="course", password=PASSWORD)
    with pytest.raises(LoginRefused) as refused:
        hook.list_tags("course/x")
    message = line(refused.value)
    assert message.startswith(
        f"registry {token_registry.address}, repository course/x: its token server http://127.0.0.1:"
    )
    assert message.endswith("refuses the login course (UNAUTHORIZED: not ***)")


@needs_engine
def test_a_private_ca_is_trusted_when_the_connection_names_it(
    tls_registry: RunningRegistry,
    certificate: Path,
    make_hook: MakeHook,
    save_image: SaveImage,
    repository: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = f"https://{tls_registry.address}"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(Path(__file__)))  # must not take the place of ca_cert
    trusting = make_hook(host=host, extra={"ca_cert": str(certificate.with_name("ca.pem"))})
    digest = trusting.load_image(repository, "1.0", save_image("over TLS"))
    assert trusting.get_image_digest(repository, "1.0") == digest
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.warns(match="Unverified HTTPS request"):
        assert make_hook("uri", host=host, extra={"insecure": "true"}).list_tags(repository) == ["1.0"]
    with pytest.raises(RegistryUnavailable, match=r"has no valid certificate .*unable to get local issuer"):
        make_hook(host=host, retries=0).list_tags(repository)


# --- servers that are broken or hostile


INDEX = json.dumps({"schemaVersion": 2, "manifests": []}).encode()


def challenged(request: Request, then: Reply) -> Reply:
    """Ask for a login first, as a real registry does."""
    return then if request.login == ("course", PASSWORD) else reply({}, 401, WWW_Authenticate='Basic realm="course"')


def test_a_digest_that_does_not_match_is_an_error(make_hook: MakeHook) -> None:
    wrong = sha256(b"something else")

    def lie(request: Request) -> Reply:
        return reply(INDEX, Docker_Content_Digest=sha256(INDEX) if request.path.endswith(wrong) else wrong)

    with serve(lie) as server:
        hook = make_hook(host=server.address)
        with pytest.raises(DigestMismatch) as by_tag:
            hook.get_image_digest("course/x", "1.0")
        with pytest.raises(DigestMismatch) as by_digest:
            hook.get_image_digest("course/x", wrong)
    said = f"the digest is said to be {wrong}, but it is {sha256(INDEX)}"
    assert line(by_tag.value) == f"registry {server.address}, repository course/x, tag 1.0: {said}"
    assert line(by_digest.value) == f"registry {server.address}, repository course/x, digest {wrong}: {said}"


def test_without_a_digest_from_the_registry_it_is_computed_and_a_sha512_is_checked_as_such(
    make_hook: MakeHook,
) -> None:
    sha512 = f"sha512:{hashlib.sha512(INDEX).hexdigest()}"
    for headers, digest in (({}, sha256(INDEX)), ({"Docker_Content_Digest": sha512}, sha512)):
        with serve(lambda _, headers=headers: reply(INDEX, **headers)) as server:
            assert make_hook(host=server.address).get_image_digest("course/x", "1.0") == digest


@pytest.mark.parametrize("link", ['<?last={}>; rel="next"', '</v2/course/x/tags/list?n=100>; rel="next"'])
def test_paging_without_end_is_an_error(link: str, make_hook: MakeHook) -> None:
    pages = iter(range(10**9))

    def more(request: Request) -> Reply:
        page = next(pages)
        return reply({"tags": [f"t{page}"]}, Link=link.format(page))

    with serve(more) as server, pytest.raises(BadAnswer) as endless:
        make_hook(host=server.address).list_tags("course/x")
    assert line(endless.value) == f"registry {server.address}, repository course/x: the list of tags does not end"


def test_a_next_page_on_another_host_is_not_asked_for(make_hook: MakeHook) -> None:
    with serve(lambda _: reply({"tags": ["theirs"]})) as other:

        def lead_away(request: Request) -> Reply:
            return challenged(request, reply({"tags": ["1"]}, Link=f'<http://{other.address}/v2/x>; rel="next"'))

        with serve(lead_away) as server, pytest.raises(BadAnswer, match="the next page of tags is on another host"):
            make_hook(host=server.address, login="course", password=PASSWORD).list_tags("course/x")
    assert other.seen == []


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_a_huge_answer_is_not_read_to_its_end(status: int, make_hook: MakeHook) -> None:
    headers = {"Content-Length": str(10**12), "Location": "/elsewhere"}

    with (
        serve(lambda _: (status, headers, b" " * (BODY_LIMIT + 100_000))) as server,
        pytest.raises(BadAnswer, match=f"longer than {BODY_LIMIT} bytes"),
    ):
        make_hook(host=server.address, retries=0).get_image_digest("course/x", "1.0")


def test_a_redirect_to_another_host_is_followed_without_the_password(make_hook: MakeHook) -> None:
    with serve(lambda _: reply(INDEX)) as other:

        def redirect(request: Request) -> Reply:
            return challenged(request, reply({}, 307, Location=f"http://{other.address}/there"))

        with serve(redirect) as server:
            hook = make_hook(host=server.address, login="course", password=PASSWORD)
            assert hook.get_image_digest("course/x", "1.0") == sha256(INDEX)
    assert [request.path for request in other.seen] == ["/there"]
    assert "authorization" not in other.seen[0].headers
    assert server.seen[-1].login == ("course", PASSWORD)


def test_a_host_that_asks_for_the_password_after_a_redirect_does_not_get_it(make_hook: MakeHook) -> None:
    with serve(lambda _: reply({}, 401, WWW_Authenticate='Basic realm="course"')) as other:

        def redirect(request: Request) -> Reply:
            return challenged(request, reply({}, 307, Location=f"http://{other.address}/there"))

        with serve(redirect) as server, pytest.raises(LoginRefused, match="which asks for a login, and gets none"):
            make_hook(host=server.address, login="course", password=PASSWORD).list_tags("course/x")
    assert len(other.seen) == 1
    assert "authorization" not in other.seen[0].headers


def test_a_redirect_in_a_circle_ends(make_hook: MakeHook) -> None:
    with serve(lambda _: reply({}, 302, Location="?again")) as server, pytest.raises(BadAnswer, match="redirects"):
        make_hook(host=server.address).list_repositories()
    assert len(server.seen) < 10


def test_a_deletion_does_not_follow_a_redirect(make_hook: MakeHook) -> None:
    with serve(lambda _: reply({}, 307, Location="/v2/course/other")) as server, pytest.raises(BadAnswer):
        make_hook(host=server.address).delete_image("course/x", sha256(b""))
    assert len(server.seen) == 1


@pytest.mark.parametrize("hint", ["token server", "redirect"])
def test_a_password_never_leaves_the_encrypted_connection(hint: str, certificate: Path, make_hook: MakeHook) -> None:
    with serve(lambda _: reply({"token": "x"})) as plain:

        def downgrade(_: Request) -> Reply:
            url = f"http://{plain.address}/"
            if hint == "redirect":
                return reply({}, 307, Location=url)
            return reply({}, 401, WWW_Authenticate=f'Bearer realm="{url}",service="x"')

        with serve(downgrade, certificate) as server:
            extra = {"ca_cert": str(certificate.with_name("ca.pem"))}
            hook = make_hook(host=f"https://{server.address}", login="course", password=PASSWORD, extra=extra)
            with pytest.raises(BadAnswer, match="not as safe as its own"):
                hook.list_repositories()
    assert plain.seen == []


def test_a_token_that_has_run_out_is_replaced(make_hook: MakeHook) -> None:
    tokens = ["first", "second"]

    def registry_and_tokens(request: Request) -> Reply:
        if request.path == "/token":
            assert request.login == ("course", PASSWORD)
            assert request.query == {"service": ["a, b"], "scope": ["repository:course/x:pull", "other:x:y"]}
            return reply({"access_token": tokens[0]})
        if request.headers.get("authorization") == f"Bearer {tokens[0]}":
            return reply({"tags": [tokens[0]]})
        challenge = (
            f'Basic realm="no", Bearer realm="http://{server.address}/token",service="a, b",'
            'scope="repository:course/x:pull other:x:y",error="invalid_token"'
        )
        return reply({}, 401, WWW_Authenticate=challenge)

    with serve(registry_and_tokens) as server:
        hook = make_hook(host=server.address, login="course", password=PASSWORD)
        assert hook.list_tags("course/x") == ["first"]
        assert hook.list_tags("course/x") == ["first"]
        assert [request.path for request in server.seen].count("/token") == 1
        tokens.pop(0)
        assert hook.list_tags("course/x") == ["second"]


@pytest.mark.parametrize("token", ["two\r\nX-Header: lines", "", 7, None, ["x"]])
def test_a_token_that_is_none_is_an_error(token: object, make_hook: MakeHook) -> None:
    def registry_and_tokens(request: Request) -> Reply:
        if request.path == "/token":
            return reply({"token": token})
        return reply({}, 401, WWW_Authenticate=f'Bearer realm="http://{server.address}/token"')

    with serve(registry_and_tokens) as server, pytest.raises(BadAnswer, match="gave no token"):
        make_hook(host=server.address).list_repositories()


@pytest.mark.parametrize(
    "challenge", ["", "Negotiate", "Digest realm=x", "Bearer", "Bearer realm=x", "Bearer realm=https://["]
)
def test_a_login_that_cannot_be_answered_is_an_error(challenge: str, make_hook: MakeHook) -> None:
    with serve(lambda _: reply({}, 401, WWW_Authenticate=challenge)) as server, pytest.raises(BadAnswer):
        make_hook(host=server.address, login="course", password=PASSWORD).list_repositories()
    assert all("authorization" not in request.headers for request in server.seen)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"7", b'{"tags": "1.0"}', b'{"tags": [1]}', b'{"tags": ["../x"]}', b"[" * 100_000]
)
def test_an_answer_that_is_no_list_is_an_error(body: bytes, make_hook: MakeHook) -> None:
    with serve(lambda _: reply(body)) as server, pytest.raises(BadAnswer, match="the answer is not a list of tags"):
        make_hook(host=server.address).list_tags("course/x")


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {"schemaVersion": 1},
        {"schemaVersion": 2, "config": {"digest": "../../../secret"}},
        {"schemaVersion": 2, "config": 7},
        {"schemaVersion": 2, "manifests": [7, {"digest": 7, "platform": {"os": "linux", "architecture": "amd64"}}]},
    ],
)
def test_a_manifest_that_is_none_is_an_error(manifest: object, make_hook: MakeHook) -> None:
    with serve(lambda _: reply(manifest)) as server, pytest.raises((BadAnswer, PlatformNotFound)):
        make_hook(host=server.address).get_image_digest("course/x", "1.0", "linux/amd64")
    assert len(server.seen) == 1


def test_the_words_of_a_registry_are_shown_short_in_one_line_and_without_the_password(make_hook: MakeHook) -> None:
    def echo(request: Request) -> Reply:
        words = f"\x1b[31m{PASSWORD}\n{request.headers.get('authorization')} {'blah ' * 1000}"
        return challenged(request, reply({"errors": [{"code": "DENIED", "message": words}]}, 403))

    with serve(echo) as server, pytest.raises(AccessDenied) as denied:
        make_hook(host=server.address, login="course", password=PASSWORD).list_tags("course/x")
    message = line(denied.value)
    assert len(message) < 400
    assert "DENIED:  [31m*** Basic *** blah" in message


def test_a_server_in_trouble_is_asked_again_and_not_for_ever(make_hook: MakeHook) -> None:
    troubles = [503, 429, 500]
    with serve(lambda _: reply({"tags": ["1.0"]}, troubles.pop() if troubles else 200, Retry_After="0")) as server:
        assert make_hook(host=server.address, retries=3).list_tags("course/x") == ["1.0"]
    assert len(server.seen) == 4
    with serve(lambda _: reply({}, 503)) as server, pytest.raises(RegistryUnavailable) as trouble:
        make_hook(host=server.address, retries=1).list_tags("course/x")
    assert len(server.seen) == 2
    where = f"registry {server.address}, repository course/x: it answered 503 to "
    assert line(trouble.value) == f"{where}http://{server.address}/v2/course/x/tags/list"


def test_an_answer_that_breaks_off_is_an_error(make_hook: MakeHook) -> None:
    cut = {"Content-Length": "1000"}
    with serve(lambda _: (200, cut, b'{"tags": []}')) as server, pytest.raises(RegistryUnavailable, match="no answer"):
        make_hook(host=server.address).list_tags("course/x")


def test_a_registry_that_is_not_there_or_says_nothing_is_unavailable(make_hook: MakeHook) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        hook = make_hook(host=address, retries=0)
        hook.timeout = 0.3
        with pytest.raises(RegistryUnavailable, match="timed out"):
            hook.list_repositories()
    with pytest.raises(RegistryUnavailable) as refused:
        make_hook(host=address).image_exists("course/x", "1.0")
    url = f"http://{address}/v2/course/x/manifests/1.0"
    assert line(refused.value) == (
        f"registry {address}, repository course/x, tag 1.0: no answer from {url} "
        "(Failed to establish a new connection: [Errno 111] Connection refused)"
    )


# --- what is wrong before anybody is asked


@pytest.mark.parametrize(
    ("repository", "tag"),
    [
        ("", "1.0"),
        ("Course/x", "1.0"),
        ("course/x:1.0", "1.0"),
        ("127.0.0.1:5000/x", "1.0"),
        ("/course", "1.0"),
        ("course/../x", "1.0"),
        ("course/x\n", "1.0"),
        ("course/x?n=1", "1.0"),
        ("x" * 256, "1.0"),
        (None, "1.0"),
        ("course/x", ""),
        ("course/x", ".hidden"),
        ("course/x", "-f"),
        ("course/x", "1.0\n"),
        ("course/x", "a b"),
        ("course/x", "a/b"),
        ("course/x", "x" * 129),
        ("course/x", "sha256:abc"),
        ("course/x", "tägged"),
        ("course/x", 1.0),
        ("course/x", None),
    ],
)
def test_an_illegal_repository_or_tag_is_named_and_nobody_is_asked(
    repository: str, tag: str, make_hook: MakeHook, tmp_path: Path
) -> None:
    with serve(lambda _: reply({})) as server:
        hook = make_hook(host=server.address)
        for ask in (hook.get_image_digest, hook.image_exists, lambda *of: hook.load_image(*of, tmp_path)):
            with pytest.raises(InvalidReference) as invalid:
                ask(repository, tag)
            assert line(invalid.value).startswith(f"registry {server.address}")
    assert server.seen == []


def test_an_image_is_deleted_by_digest_only_and_pushed_by_tag_only(make_hook: MakeHook, tmp_path: Path) -> None:
    hook = make_hook(host="127.0.0.1:1")
    with pytest.raises(InvalidReference, match="only a digest can be deleted"):
        hook.delete_image("course/x", "1.0")
    with pytest.raises(InvalidReference, match="pushed under a tag"):
        hook.load_image("course/x", sha256(b""), tmp_path)
    for platform in ("amd64", "linux", "linux/amd64/v1/x", "", "../x"):
        with pytest.raises(InvalidReference, match="is not a platform"):
            hook.get_image_digest("course/x", "1.0", platform)


@pytest.mark.parametrize(
    ("fields", "url", "in_image_names"),
    [
        ({"host": "127.0.0.1:5000"}, "http://127.0.0.1:5000", "127.0.0.1:5000"),
        ({"host": "localhost", "port": 5000}, "http://localhost:5000", "localhost:5000"),
        ({"host": "[::1]:5000"}, "http://[::1]:5000", "[::1]:5000"),
        ({"host": "registry.example.org"}, "https://registry.example.org", "registry.example.org"),
        ({"host": "https://registry.example.org/"}, "https://registry.example.org", "registry.example.org"),
        ({"host": "example.org:5000", "port": 5000}, "https://example.org:5000", "example.org:5000"),
        ({"host": "http://registry"}, "http://registry", "registry:80"),
        ({"host": "registry"}, "https://registry", "registry:443"),
        (
            {"host": "127.0.0.1:5000", "extra": {"api_url": "http://registry:5000"}},
            "http://registry:5000",
            "127.0.0.1:5000",
        ),
    ],
)  # fmt: skip
def test_the_address_of_a_registry_is_read_as_docker_reads_it(
    fields: dict[str, object], url: str, in_image_names: str, make_hook: MakeHook
) -> None:
    for form in ("json", "uri"):
        hook = make_hook(form, **fields)
        assert hook.get_conn().url == url
        assert hook._engine_address == in_image_names


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "host is missing"),
        ({"host": "registry.example.org/v1"}, "host is not an address of a registry"),
        ({"host": "registry.example.org:port"}, "host is not an address of a registry"),
        ({"host": "a b"}, "host is not an address of a registry"),
        ({"host": "[::1"}, "host is not an address of a registry"),
        ({"host": "ftp://registry.example.org"}, "host begins with ftp://"),
        ({"host": f"https://course:{PASSWORD}@registry.example.org"}, "host holds a login"),
        ({"host": "a:5000", "port": 5001}, "host and port name two ports, 5000 and 5001"),
        ({"host": "a:1", "login": "course"}, "password is missing"),
        ({"host": "a:1", "password": PASSWORD}, "login is missing"),
        ({"host": "a:1", "extra": {"insecure": "perhaps"}}, "insecure is neither true nor false"),
        ({"host": "a:1", "extra": {"ca_cert": "/no/such.pem"}}, "ca_cert is not a file: /no/such.pem"),
        ({"host": "a:1", "extra": {"ca_cert": __file__, "insecure": True}}, "contradict each other"),
        ({"host": "a:1", "extra": {"api_url": "a/b"}}, "api_url is not an address of a registry"),
    ],
)
def test_a_connection_that_cannot_work_says_why(fields: dict[str, object], complaint: str, make_hook: MakeHook) -> None:
    hook = make_hook(**fields)
    with pytest.raises(RegistrySettingsError) as wrong:
        hook.list_repositories()
    assert line(wrong.value).startswith(f"connection {hook.registry_conn_id}: ")
    assert complaint in str(wrong.value)
    assert hook.test_connection() == (False, str(wrong.value))


@needs_engine
@pytest.mark.parametrize(
    "refusal", [reply({"message": f"no\nloading {PASSWORD}"}, 403), reply(b"<html>Forbidden</html>", 403)]
)
def test_an_engine_that_refuses_is_named(refusal: Reply, make_hook: MakeHook, save_image: SaveImage) -> None:
    def registry_and_engine(request: Request) -> Reply:
        if request.path == "/version":
            return reply({"ApiVersion": "1.41"})
        if request.path == "/v2/":
            return reply({})
        return reply({"message": "no such image"}, 404) if request.path.endswith("/json") else refusal

    with serve(registry_and_engine) as server:
        hook = make_hook(host=server.address, docker_url=f"tcp://{server.address}", login="course", password=PASSWORD)
        with pytest.raises(EngineError) as refused:
            hook.load_image("course/x", "1.0", save_image("refused"))
    assert line(refused.value).startswith(f"registry {server.address}, repository course/x, tag 1.0: ")
    assert "Docker engine" in str(refused.value)


@needs_engine
def test_an_engine_that_is_not_there_is_named(make_hook: MakeHook, save_image: SaveImage) -> None:
    with serve(lambda _: reply({})) as server:
        hook = make_hook(host=server.address, docker_url="tcp://127.0.0.1:1")
        with pytest.raises(EngineError) as nobody:
            hook.load_image("course/x", "1.0", save_image("for nobody"))
    where = f"registry {server.address}, repository course/x, tag 1.0: "
    assert line(nobody.value).startswith(f"{where}no answer from a Docker engine at tcp://127.0.0.1:1: ")


def test_every_error_can_be_caught_as_one() -> None:
    for error in (InvalidArchive, EngineError, PushFailed, AccessDenied, BadAnswer, DigestMismatch, ImageNotFound,
                  InvalidReference, LoginRefused, RegistrySettingsError, RegistryUnavailable):  # fmt: skip
        assert issubclass(error, DockerRegistryError)


# --- in Airflow


@pytest.fixture
def airflow_api(airflow_database: None, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Airflow's API server with the plugins folder. Everybody is an admin. Called with a method and a path."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "PYTHONPATH": str(PLUGINS),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    }
    log = tmp_path / "api-server.log"
    command = [sys.executable, "-m", "airflow", "api-server", "--apps", "core", "--host", "127.0.0.1", "--port", port]
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    session = requests.Session()
    session.trust_env = False

    def ask(method: str, path: str, **options: object) -> Any:
        answer = session.request(method, f"http://127.0.0.1:{port}{path}", timeout=30, **options)
        assert answer.ok, answer.text
        return answer.json()

    deadline = time.monotonic() + 60
    try:
        while not session.headers.get("Authorization"):
            try:
                session.headers["Authorization"] = f"Bearer {ask('GET', '/auth/token')['access_token']}"
            except requests.ConnectionError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"no API server. Its log:\n{log.read_text()}")
                time.sleep(0.1)
        yield ask
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def test_airflow_shows_the_form_of_the_connection_and_its_test_button_works(airflow_api: Callable[..., Any]) -> None:
    forms = {form["connection_type"]: form for form in airflow_api("GET", "/ui/connections/hook_meta")}
    form = forms["docker_registry"]
    assert form["hook_name"] == "Docker Registry"
    assert form["standard_fields"]["host"]["title"] == "Registry URL"
    assert form["standard_fields"]["url_schema"]["hidden"]
    assert set(form["extra_fields"]) >= {"api_url", "ca_cert", "insecure"} | set(forms["docker"]["extra_fields"])

    def press(**fields: object) -> tuple[bool, str]:
        body = {"connection_id": "typed_in", "conn_type": "docker_registry"} | fields
        answer = airflow_api("POST", "/api/v2/connections/test", json=body)
        return answer["status"], answer["message"]

    with serve(lambda request: challenged(request, reply({}))) as registry:
        right = {"host": f"http://{registry.address}", "login": "course", "password": PASSWORD}
        assert press(**right) == (True, f"registry {registry.address}: logged in as course")
        refused = f"registry {registry.address}: refuses the login course"
        assert press(**right | {"password": "wrong"}) == (False, refused)
        nobody = f"registry {registry.address}: asks for a login, and the connection has none"
        assert press(host=registry.address) == (False, nobody)
    with serve(lambda _: reply({})) as registry:
        assert press(**right | {"host": registry.address}) == (
            True,
            f"registry {registry.address} answers, and asks for no login",
        )


def test_the_type_of_a_connection_leads_to_the_hook_wherever_the_plugins_folder_is_known(tmp_path: Path) -> None:
    ask = (
        "from airflow import settings; settings.initialize(); from airflow.sdk import Connection;"
        "hook = Connection.from_uri('docker-registry://127.0.0.1:1', 'x').get_hook();"
        "print(type(hook).__module__, type(hook).__name__, hook.registry_conn_id)"
    )
    environment = os.environ | {"AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS), "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "docker_registry.hook DockerRegistryHook x"
