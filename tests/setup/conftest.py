"""A machine that has little: everything the set-up scripts see is a folder of fakes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.state import ROOT


class Machine:
    """A checkout, a home and a PATH with nothing but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.home, self.bin = folder / "checkout", folder / "home", folder / "bin"
        for made in (self.checkout / "scripts", self.checkout / "requirements", self.home, self.bin):
            made.mkdir(parents=True)
        for name in ("find_python.sh", "setup.sh"):
            shutil.copy(ROOT / "scripts" / name, self.checkout / "scripts")
        table = (ROOT / "scripts/packages.tsv").read_text()
        (self.checkout / "scripts/packages.tsv").write_text(
            table.replace("\t/", f"\t{folder}/").replace("|/", f"|{folder}/")
        )

    def put(self, name: str, script: str) -> Path:
        """A program of this name on PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def put_python(self, *, but: str = "pass", name: str = "python3") -> Path:
        """The Python of this test run, changed by a statement; it can only run `-c`."""
        program = f"import sys; {but}; exec(sys.argv[1])"
        return self.put(name, f'[ "$1" = -c ] || exit 2\nexec "{sys.executable}" -c "{program}" "$2"')

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """One of the checkout's scripts."""
        return subprocess.run(
            ["/bin/sh", f"scripts/{script}", *arguments], cwd=self.checkout, capture_output=True, text=True, check=False,
            env={"PATH": str(self.bin), "HOME": str(self.home), "PIP_NO_INDEX": "1", **environment},
        )  # fmt: skip

    def rows(self) -> list[Row]:
        """The table of packages; its paths lie in the folder of this machine."""
        lines = (self.checkout / "scripts/packages.tsv").read_text().splitlines()
        return [Row(*line.split("\t")) for line in lines if not line.startswith("#")]

    def install(self, program: str) -> None:
        """A program of the table, on PATH or where its path (the last, of several) says."""
        program = program.rpartition("|")[2]
        if program.startswith("/"):
            Path(program).mkdir(parents=True)
        else:
            self.put(program, "")

    def let_setup_run(self, *, user: int = 0, apt_get: str = "") -> None:
        """What setup.sh needs itself; `apt-get` is written down in `asked`, then does this."""
        for name in ("mktemp", "rm", "dirname", "sha256sum", "cut", "cat", "tail", "sh"):
            found = shutil.which(name)
            assert found is not None
            (self.bin / name).symlink_to(found)
        self.put("id", f"echo {user}")
        self.put("apt-get", f'echo "$*" >>"{self.home}/asked"\n{apt_get}')

    def have_environment(self) -> None:
        """A .venv that nothing is to be done for."""
        python = self.checkout / ".venv/bin/python"
        python.parent.mkdir(parents=True)
        self.put("true", "").rename(python)
        for kind in ("up", "dev"):
            (self.checkout / f"requirements/{kind}.txt").touch()
            (self.checkout / f".venv/.moorage-{kind}").write_text(hashlib.sha256(b"").hexdigest())

    def asked(self) -> list[str]:
        """Each call of apt-get."""
        path = self.home / "asked"
        return path.read_text().splitlines() if path.exists() else []


@dataclass(frozen=True)
class Row:
    """A line of scripts/packages.tsv."""

    needs: str
    program: str
    package: str
    why: str


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)
