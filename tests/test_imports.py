"""Import directions (docs/interfaces.md): which package may know which, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Later layers may import earlier ones, never the other way round.
RUNTIME_LAYERS = {"kernel": 0, "errors": 0, "oci": 1, "images": 1, "storage": 1, "network": 1, "engine": 2}
PORTAL_LAYERS = {
    "config": 0, "errors": 0, "crypto": 0, "told": 0, "figures": 0, "audit": 1, "accounts": 1, "plans": 2, "images": 2, "fleet": 2, "volumes": 2,
    "hosting": 3, "releases": 4, "telemetry": 5, "catalog": 5, "jobs": 5,
    "pages": 6,
}  # fmt: skip
ANY_LAYER = 9
RUNTIME_FOR_PORTAL = ("runtime.images.format", "runtime.images", "runtime")
FRAMEWORKS = ("django", "celery", "redis", "kombu", "channels")


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """Dotted name and path of every module below a package; migrations are Django's."""
    for path in sorted((ROOT / package).rglob("*.py")):
        if "migrations" not in path.parts:
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imported(path: Path) -> Iterator[str]:
    """Dotted names a module imports when it is loaded or later, type-checking imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offences(package: str, forbidden: tuple[str, ...]) -> list[str]:
    """Imports of a package that begin with a forbidden name."""
    return [
        f"{name} imports {target}"
        for name, path in modules(package)
        for target in imported(path)
        if any(target == bad or target.startswith(bad + ".") for bad in forbidden)
    ]


def test_the_runtime_knows_no_framework_and_no_other_package() -> None:
    assert offences("runtime", (*FRAMEWORKS, "portal", "worker", "cli", "scripts")) == []


def test_the_worker_knows_neither_runtime_nor_portal() -> None:
    assert offences("worker", ("runtime", "portal", "django", "cli", "scripts")) == []


def test_the_command_line_knows_the_portal_by_its_rest_alone() -> None:
    assert offences("cli", ("runtime", "worker", "portal", "scripts", *FRAMEWORKS)) == []


def test_the_portal_knows_of_the_runtime_only_the_image_format() -> None:
    found = [line for line in offences("portal", ("runtime",)) if line.rpartition(" ")[2] not in RUNTIME_FOR_PORTAL]
    assert [line for line in found if ".format" not in line] == []


def test_the_portal_knows_of_the_worker_only_the_protocol() -> None:
    assert [line for line in offences("portal", ("worker",)) if "worker.protocol" not in line] == []


def layer_offences(package: str, layers: dict[str, int]) -> list[str]:
    found = []
    for name, path in modules(package):
        parts = name.split(".")
        own = layers.get(parts[1], ANY_LAYER) if len(parts) > 1 else ANY_LAYER
        for target in imported(path):
            other = target.split(".")
            if other[0] == package and len(other) > 1 and layers.get(other[1], 0 if own == ANY_LAYER else -1) > own:
                found.append(f"{name} imports {target}")
    return found


def test_layers_of_the_runtime_are_imported_downwards_only() -> None:
    assert layer_offences("runtime", RUNTIME_LAYERS) == []


def test_apps_of_the_portal_are_imported_downwards_only() -> None:
    assert layer_offences("portal", PORTAL_LAYERS) == []


# Inside an app of the portal, and from one to another: who asks, who does, what is.
PORTAL_PARTS = {
    "models": 0, "access": 1, "check": 1, "actions": 2, "tasks": 3, "forms": 3, "views": 3, "urls": 4, "api": 3,
}  # fmt: skip


def test_models_know_no_actions_and_actions_no_views() -> None:
    found = []
    for name, path in modules("portal"):
        own = PORTAL_PARTS.get(name.rsplit(".", 1)[-1])
        for target in imported(path):
            words = target.split(".")
            other = PORTAL_PARTS.get(words[2]) if words[0] == "portal" and len(words) > 2 else None
            if own is not None and other is not None and other > own:
                found.append(f"{name} imports {target}")
    assert found == []


@pytest.mark.parametrize("program", ["runtime/oci/launcher.py", "runtime/oci/monitor.py", "runtime/oci/init.py"])
def test_what_lives_as_long_as_a_container_loads_the_standard_library_only(program: str) -> None:
    heavy = {"asyncio", "logging", "ssl", "aiohttp", "pyroute2", "http", "urllib"}
    assert [name for name in imported(ROOT / program) if name.split(".")[0] in heavy] == []


def test_ctypes_is_used_in_one_file_of_the_runtime() -> None:
    users = {name for name, path in modules("runtime") for target in imported(path) if target.split(".")[0] == "ctypes"}
    assert users <= {"runtime.kernel.syscalls"}
