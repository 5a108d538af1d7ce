"""The compose file is one to `docker-compose config`, and names what is there. Both are read by their lines: no YAML reader is
among the requirements."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from portal.databases import database_from_url
from scripts.state import ROOT

TEXT = (ROOT / "compose/compose.yaml").read_text()
EXAMPLE = ROOT / "compose/env.example"
FILLED_IN = {
    "POSTGRES_PASSWORD": "b@tt/ery:1#%40",  # what would end a password within a URL
    "MOORAGE_ADMIN_PASSWORD": "staple-2",
    "MOORAGE_EMAIL_URL": "smtps://horse-3@mail",
}
FOLDERS = {"/var/lib/moorage": "MOORAGE_STATE", "/run/moorage/compose": "MOORAGE_RUN"}


def section(name: str, text: str = TEXT, indent: str = "") -> str:
    """The lines below a key."""
    found = re.search(rf"^{indent}{name}:.*\n((?:{indent} .*\n|\s*\n)*)", text, re.MULTILINE)
    assert found is not None, f"there is no {name}"
    return found[1]


def services() -> dict[str, str]:
    """Name and lines of those that run this repository."""
    all_of_them = section("services")
    names = re.findall(r"^  ([a-z]+):$", all_of_them, re.MULTILINE)
    return {name: body for name in names if "*moorage" in (body := section(name, all_of_them, "  "))}


def commands() -> dict[str, list[str]]:
    """Service and command."""
    return {name: json.loads(body.partition("command: ")[2].splitlines()[0]) for name, body in services().items()}


def module_exists(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def missing(command: list[str]) -> list[str]:
    """What a command names that this repository lacks."""
    match command:
        case ["sh", "-c", script]:
            steps = [shlex.split(step.strip().removeprefix("exec ")) for step in script.split("&&")]
            return [name for step in steps for name in missing(step)]
        case ["python", "-m", module, *_]:
            return [] if module_exists(module) else [module]
        case ["python", file, *_]:
            return [] if (ROOT / file).is_file() else [file]
        case ["gunicorn", "-c", file, application]:
            module = application.partition(":")[0]
            return [*([] if (ROOT / file).is_file() else [file]), *([] if module_exists(module) else [module])]
        case ["celery", "-A", module, "worker", *_]:
            return [] if module_exists(module) else [module]
        case ["haproxy", *_]:
            return []
    return command


def test_each_service_runs_what_this_repository_has() -> None:
    found = commands()
    assert set(found) == {"bootstrap", "web", "control", "engine", "worker", "agent", "ingress"}
    assert {name: lacking for name, command in found.items() if (lacking := missing(command))} == {}


def test_each_folder_in_a_command_is_the_one_the_others_are_told() -> None:
    for folder, variable in FOLDERS.items():
        assert f"    {variable}: {folder}\n" in TEXT
    named = {
        word for command in commands().values() for word in re.findall(r"/(?:var|run)/[a-z./-]+", " ".join(command))
    }
    assert {word for word in named if not word.startswith(tuple(FOLDERS))} == set()
    assert commands()["engine"][-4:] == ["--state", "/var/lib/moorage", "--run", "/run/moorage/compose"]


def test_secrets_reach_only_what_reads_them() -> None:
    assert {name for name, body in services().items() if "*database" in body} == {"bootstrap", "web", "control"}
    assert {name for name, body in services().items() if "*redis" in body} == {
        "worker",
        "agent",
    }  # and *database has it
    assert {name for name, body in services().items() if "MOORAGE_ADMIN_PASSWORD" in body} == {"bootstrap"}
    for secret in ("DATABASE_URL", "PGPASSWORD", "REDIS_URL", "ADMIN_PASSWORD"):
        assert secret not in section("x-moorage")
    assert "*redis" in section("x-database") and "REDIS_URL" in section("x-redis")


def test_each_volume_that_is_mounted_is_declared() -> None:
    mounted = set(re.findall(r"""[-"\[] ?"?([a-z]+):/""", TEXT))
    assert mounted == set(re.findall(r"^  ([a-z]+):", section("volumes"), re.MULTILINE))


def test_the_image_takes_neither_secrets_nor_this_machines_environment_along() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", ".uv", "compose/.env"} <= set(ignored)
    copied = re.findall(r"^COPY (\S+) ", (ROOT / "compose/Dockerfile").read_text(), re.MULTILINE)
    assert all((ROOT / Path(name)).exists() for name in copied)


def config(file: Path, folder: Path, *options: str, **filled_in: str) -> subprocess.CompletedProcess[str]:
    """What compose makes of a file and the example of its settings, in which these were filled in; nothing else is set."""
    lines = [f"{name}={filled_in.get(name, value)}" for name, value in example().items()]
    (folder / "env").write_text("\n".join(lines))
    command = ["docker-compose", "-f", str(file), "--env-file", str(folder / "env"), "config", *options]
    here = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True, check=False)


def example() -> dict[str, str]:
    """Name and value of each setting in the example."""
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE))


@pytest.mark.parametrize("file", [path.name for path in (ROOT / "compose").glob("*.y*ml")])
def test_compose_takes_each_file_with_the_example_filled_in(file: str, tmp_path: Path) -> None:
    done = config(ROOT / "compose" / file, tmp_path, **FILLED_IN)
    assert done.returncode == 0, done.stderr
    assert "variable is not set" not in done.stderr


def test_what_compose_would_start(tmp_path: Path) -> None:
    named = config(ROOT / "compose/compose.yaml", tmp_path, "--services", **FILLED_IN).stdout.split()
    assert set(named) == {*services(), "postgres", "redis"}
    said = section("services", config(ROOT / "compose/compose.yaml", tmp_path, **FILLED_IN).stdout)
    found = {name: section(name, said, "  ") for name in named}

    def those_with(words: str) -> set[str]:
        return {name for name, body in found.items() if words in body}

    assert those_with("privileged: true") == those_with("pid: host") == {"engine"}
    assert those_with("network_mode: host") == set(services())
    assert those_with("MOORAGE_DOMAIN: apps.example.org") == set(services())
    assert those_with(FILLED_IN["POSTGRES_PASSWORD"]) == {"postgres", "bootstrap", "web", "control"}
    assert those_with(FILLED_IN["MOORAGE_ADMIN_PASSWORD"]) == {"bootstrap"}
    assert those_with(FILLED_IN["MOORAGE_EMAIL_URL"]) == {"bootstrap", "web", "control"}
    assert those_with("ports:") == {"postgres", "redis"}
    assert all("127.0.0.1" in found[name].partition("ports:")[2] for name in ("postgres", "redis"))


def test_no_password_is_written_in_the_file(tmp_path: Path) -> None:
    """Without one compose refuses and says where it belongs; what a password is in its answer all came from the settings."""
    done = config(ROOT / "compose/compose.yaml", tmp_path)
    assert done.returncode != 0
    assert "set it in compose/.env" in done.stderr
    assert {name: value for name, value in example().items() if name in FILLED_IN and value} == {}
    said = config(ROOT / "compose/compose.yaml", tmp_path, **FILLED_IN).stdout
    written = {value.strip("'\"") for value in re.findall(r"PASSWORD: (.*)", said)}
    assert written == {FILLED_IN["POSTGRES_PASSWORD"], FILLED_IN["MOORAGE_ADMIN_PASSWORD"]}


def test_any_password_leads_to_the_database_that_compose_starts(tmp_path: Path) -> None:
    """It goes beside the URL, as libpq's own PGPASSWORD, which is asked where Django is given no password."""
    said = config(ROOT / "compose/compose.yaml", tmp_path, **FILLED_IN).stdout
    (url,) = set(re.findall(r"MOORAGE_DATABASE_URL: (.*)", said))
    database = database_from_url(url)
    assert (database["USER"], database["PASSWORD"]) == ("moorage", "")
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("127.0.0.1", "5432", "moorage")
    given = {value.strip("'\"") for value in re.findall(r" (?:PG|POSTGRES_)PASSWORD: (.*)", said)}
    assert given == {FILLED_IN["POSTGRES_PASSWORD"]}


def test_each_setting_of_the_example_is_one_that_compose_reads() -> None:
    assert set(example()) <= set(re.findall(r"\$\{([A-Z_]+)", TEXT))
