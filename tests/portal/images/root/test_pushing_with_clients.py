"""What people push with, as the distribution has it: skopeo, podman, buildah and docker sign in, push, and pull the same again."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.hosting.models import App
from portal.images.blobs import BlobStore
from portal.images.models import Image, Tag
from tests.conftest import People
from tests.portal.images import archives
from tests.portal.images.registries import registry

pytestmark = [pytest.mark.root, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The registry on a port."""
    with registry() as made:
        yield made


@pytest.fixture
def secret(people: People, app: App, store: BlobStore) -> str:
    """The developer's API token: his password."""
    return people.token(people.developer, "deploy")


@pytest.fixture
def address(url: str, secret: str) -> str:
    """`127.0.0.1:<port>/acme/shop`: plain HTTP is good enough for every client there, or after a word."""
    return f"{url.removeprefix('http://')}/acme/shop"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The demo image, with two layers."""
    path = tmp_path / "hello.tar"
    path.write_bytes(archives.demo(size_mb=2))
    return path


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: podman wants its run folder within 50 characters, containerd its socket within 107."""
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as name:
        yield Path(name)


def run(*command: str, stdin: str = "") -> str:
    """What a client printed; fails with its error."""
    done = subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def pulled(address: str, secret: str, folder: Path) -> tuple[str, str]:
    """Digests of the manifest and the configuration that skopeo gets back; it checks those of all layers."""
    run(
        "skopeo",
        "copy",
        "-q",
        "--src-tls-verify=false",
        f"--src-creds=any:{secret}",
        f"docker://{address}",
        f"dir:{folder}",
    )
    manifest = (folder / "manifest.json").read_bytes()
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}", json.loads(manifest)["config"]["digest"]


def check(address: str, secret: str, folder: Path, config: str = "") -> None:
    """What was pushed under this tag is an image that can be deployed, and comes back the same."""
    manifest, found = pulled(address, secret, folder / "back")
    image = Tag.objects.get(name=address.rpartition(":")[2]).image
    assert (image.digest, image.kind, image.config["port"]) == (manifest, "image", 8080)
    assert config in ("", found)


def test_skopeo_pushes_what_it_pulls(address: str, secret: str, archive: Path, tmp_path: Path) -> None:
    into = f"docker://{address}:1.0"
    creds = f"--dest-creds=any:{secret}"
    digest = tmp_path / "digest"
    push = ("skopeo", "copy", "-q", "--dest-tls-verify=false", creds, "--digestfile", str(digest))
    run(*push, f"docker-archive:{archive}", into)
    check(f"{address}:1.0", secret, tmp_path)
    assert Image.objects.get().digest == digest.read_text().strip()
    run(*push, "--format=oci", f"docker-archive:{archive}", f"{into}-oci")
    check(f"{address}:1.0-oci", secret, tmp_path)
    tags = run("skopeo", "list-tags", "--tls-verify=false", f"--creds=any:{secret}", f"docker://{address}")
    assert json.loads(tags)["Tags"] == ["1.0", "1.0-oci"]


def test_skopeo_copies_every_platform_and_deletes(address: str, archive: Path, tmp_path: Path, people: People) -> None:
    secret = people.token(people.maintainer, "write")
    layout = tmp_path / "layout"
    run("skopeo", "copy", "-q", f"docker-archive:{archive}", f"oci:{layout}:one")
    index = layout / "index.json"
    top = layout / "blobs/sha256" / hashlib.sha256(index.read_bytes()).hexdigest()
    shutil.copy(index, top)  # an index of one, inside an index
    entry = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": f"sha256:{top.name}",
        "size": top.stat().st_size,
    }
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    creds = f"--dest-creds=any:{secret}"
    run("skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", creds, f"oci:{layout}", f"docker://{address}:all")
    assert sorted(Image.objects.values_list("kind", flat=True)) == ["image", "index"]
    run("skopeo", "delete", "--tls-verify=false", f"--creds=any:{secret}", f"docker://{address}:all")
    assert Tag.objects.count() == 0


def containers(tool: str, folder: Path) -> tuple[str, ...]:
    """podman or buildah on a store of the test's own."""
    return (tool, "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs")


def test_podman_signs_in_and_pushes(address: str, secret: str, archive: Path, tmp_path: Path, short: Path) -> None:
    podman, login = containers("podman", short), f"--authfile={tmp_path / 'auth.json'}"
    host = address.partition("/")[0]
    run(*podman, "login", login, "--tls-verify=false", "-u", "any", "--password-stdin", host, stdin=secret)
    run(*podman, "load", "-q", "-i", str(archive))
    run(*podman, "push", "-q", login, "--tls-verify=false", "hello:1.0", f"{address}:podman")
    identity = run(*podman, "images", "-q", "--no-trunc", "hello").strip()
    check(f"{address}:podman", secret, tmp_path, identity)
    wrong = subprocess.run(
        [*podman, "login", "--tls-verify=false", "-u", "any", "-p", "moor_wrong", host], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert wrong.returncode != 0
    assert "invalid username/password" in wrong.stderr


def test_buildah_builds_and_pushes(address: str, secret: str, tmp_path: Path, short: Path) -> None:
    buildah, creds = containers("buildah", short), f"--creds=any:{secret}"
    made = run(*buildah, "from", "scratch").strip()
    file = tmp_path / "hello.txt"
    file.write_text("hello")
    run(*buildah, "copy", "-q", made, str(file), "/hello.txt")
    run(*buildah, "config", "--port", "8080", "--cmd", "/hello", made)
    run(*buildah, "commit", "-q", made, "built")
    run(*buildah, "push", "-q", creds, "--tls-verify=false", "built", f"docker://{address}:buildah")
    check(f"{address}:buildah", secret, tmp_path)


@pytest.fixture
def docker(short: Path) -> Iterator[tuple[str, ...]]:
    """The command line on a dockerd of the test's own, which touches neither firewall nor links of this machine."""
    program, folder = shutil.which("dockerd"), short
    assert program is not None, "dockerd is missing: scripts/packages.tsv names its package"
    socket = f"unix://{folder}/docker.sock"
    options = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
    options += ["--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false", "--ip-masq=false"]
    options += ["--storage-driver=vfs", "--userland-proxy=false", "-H", socket]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(["unshare", "--mount", program, *options], stdout=log, stderr=log)
    cli = ("docker", "--config", str(folder / "config"), "-H", socket)
    try:
        deadline = time.monotonic() + 60
        while subprocess.run([*cli, "version"], capture_output=True, check=False).returncode:
            assert daemon.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield cli
    finally:
        daemon.terminate()
        daemon.wait(30)


def test_docker_signs_in_pushes_pulls_and_sends_no_layer_twice(
    docker: tuple[str, ...], address: str, secret: str, archive: Path, tmp_path: Path, people: People
) -> None:
    host = address.partition("/")[0]
    wrong = subprocess.run(
        [*docker, "login", "-u", "any", "-p", "moor_wrong", host], capture_output=True, text=True, check=False
    )
    assert wrong.returncode != 0
    assert "This token is not known" in wrong.stderr
    run(*docker, "login", "-u", "any", "--password-stdin", host, stdin=secret)
    run(*docker, "load", "-q", "-i", str(archive))
    run(*docker, "tag", "hello:1.0", f"{address}:docker")
    said = run(*docker, "push", f"{address}:docker")
    identity = run(*docker, "image", "inspect", "-f", "{{.Id}}", "hello:1.0").strip()
    check(f"{address}:docker", secret, tmp_path, identity)
    digest = Tag.objects.get(name="docker").image.digest
    assert f"digest: {digest}" in said
    App.objects.create(team=people.team, slug="second", plan=App.objects.get(slug="shop").plan)
    second = address.replace("/shop", "/second")
    run(*docker, "tag", "hello:1.0", f"{second}:1.0")
    assert run(*docker, "push", f"{second}:1.0").count("Mounted from acme/shop") == 2
    run(*docker, "rmi", "-f", identity)
    assert f"Digest: {digest}" in run(*docker, "pull", f"{address}:docker")
    assert run(*docker, "image", "inspect", "-f", "{{.Id}}", f"{address}:docker").strip() == identity
    foreign = subprocess.run([*docker, "push", f"{host}/strangers/app"], capture_output=True, text=True, check=False)
    assert foreign.returncode != 0
