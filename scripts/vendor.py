"""Vendors front-end files from npm into `static/vendor/`, with a manifest of versions, licences and digests.

python scripts/vendor.py            fetch what PACKAGES names (needs npm) and rewrite the manifest
python scripts/vendor.py --check    compare the files on disk with the manifest; needs no network
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).resolve().parent.parent / "static" / "vendor"
MANIFEST = VENDOR / "manifest.json"


@dataclass(frozen=True, slots=True)
class Package:
    """One npm package and the files kept of it: path in the archive → path below `static/vendor/`."""

    name: str
    version: str
    files: dict[str, str]


PACKAGES = (
    Package("htmx.org", "2.0.11", {"dist/htmx.min.js": "htmx/htmx.min.js", "LICENSE": "htmx/LICENSE"}),
    Package("@alpinejs/csp", "3.17.4", {"dist/module.esm.min.js": "alpine/alpine-csp.esm.min.js"}),
    Package(
        "uplot",
        "1.6.32",
        {
            "dist/uPlot.iife.min.js": "uplot/uPlot.iife.min.js",
            "dist/uPlot.min.css": "uplot/uPlot.min.css",
            "LICENSE": "uplot/LICENSE",
        },
    ),
    Package("tus-js-client", "4.3.1", {"dist/tus.min.js": "tus/tus.min.js", "LICENSE": "tus/LICENSE"}),
    Package(
        "@fontsource-variable/inter",
        "5.3.0",
        {
            "files/inter-latin-wght-normal.woff2": "fonts/inter-latin.woff2",
            "files/inter-latin-ext-wght-normal.woff2": "fonts/inter-latin-ext.woff2",
            "LICENSE": "fonts/LICENSE-inter",
        },
    ),
    Package(
        "@fontsource-variable/jetbrains-mono",
        "5.3.0",
        {
            "files/jetbrains-mono-latin-wght-normal.woff2": "fonts/jetbrains-mono-latin.woff2",
            "files/jetbrains-mono-latin-ext-wght-normal.woff2": "fonts/jetbrains-mono-latin-ext.woff2",
            "LICENSE": "fonts/LICENSE-jetbrains-mono",
        },
    ),
)


def sha256(path: Path) -> str:
    """Digest of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(package: Package, into: Path) -> dict[str, Any]:
    """Download one package with `npm pack`, copy its files and return its manifest entry."""
    command = ["npm", "pack", "--json", "--pack-destination", str(into), f"{package.name}@{package.version}"]
    packed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)[0]
    with tarfile.open(into / packed["filename"].replace("@", "").replace("/", "-")) as archive:
        licence = json.load(archive.extractfile("package/package.json") or sys.exit("no package.json"))["license"]
        for source, target in package.files.items():
            member = archive.extractfile(f"package/{source}") or sys.exit(f"{package.name} has no {source}")
            (VENDOR / target).parent.mkdir(parents=True, exist_ok=True)
            with (VENDOR / target).open("wb") as out:
                shutil.copyfileobj(member, out)
    files = {target: sha256(VENDOR / target) for target in sorted(package.files.values())}
    return {
        "name": package.name,
        "version": package.version,
        "licence": licence,
        "integrity": packed["integrity"],
        "sha256": files,
    }


def differences() -> list[str]:
    """What on disk is not as the manifest says, one sentence each."""
    entries: list[dict[str, Any]] = json.loads(MANIFEST.read_text())["packages"]
    wanted = {path: digest for entry in entries for path, digest in entry["sha256"].items()}
    present = {str(p.relative_to(VENDOR)) for p in VENDOR.rglob("*") if p.is_file() and p != MANIFEST}
    found = [f"{path} is missing; run python scripts/vendor.py" for path in sorted(wanted.keys() - present)]
    found += [
        f"{path} is not in the manifest; remove it or add it to PACKAGES" for path in sorted(present - wanted.keys())
    ]
    return found + [
        f"{path} differs from the manifest; run python scripts/vendor.py"
        for path in sorted(wanted.keys() & present)
        if sha256(VENDOR / path) != wanted[path]
    ]


def main() -> int:
    """Fetch or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        found = differences()
        print("\n".join(found) or "static/vendor is as its manifest says")
        return 1 if found else 0
    with tempfile.TemporaryDirectory() as folder:
        entries = [fetch(package, Path(folder)) for package in PACKAGES]
    MANIFEST.write_text(json.dumps({"packages": entries}, indent=2) + "\n")
    print(f"{sum(len(p.files) for p in PACKAGES)} files of {len(PACKAGES)} packages in {VENDOR}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
