"""What the next engine must know of an exec that runs: `exec/<id>.run.json` in its container's folder, gone with its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.kernel.process import ProcessRef, write_atomic
from runtime.oci.execution import EXEC_FOLDER

ENDING = ".run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRecord:
    """An exec that was let run. `monitor` is its parent, which writes `exec/<id>.json` at its end."""

    id: str
    args: tuple[str, ...]
    user: str
    tty: bool
    stdin: bool
    stdout: bool
    stderr: bool
    attach: str
    pid: int
    monitor: ProcessRef

    def write(self, container: Path) -> None:
        """Not durably: an exec does not outlive a crash of the host."""
        folder = container / EXEC_FOLDER
        folder.mkdir(exist_ok=True)
        write_atomic(folder / f"{self.id}{ENDING}", json.dumps(asdict(self)).encode())


def read_all(container: Path) -> Iterator[ExecRecord]:
    """Those of a container; what is torn is nobody's."""
    for path in sorted((container / EXEC_FOLDER).glob(f"*{ENDING}")):
        try:
            data = json.loads(path.read_bytes())
            monitor, args = ProcessRef(**data.pop("monitor")), tuple(data.pop("args"))
            yield ExecRecord(args=args, monitor=monitor, **data)
        except (ValueError, TypeError, KeyError):
            continue


def forget(container: Path, identity: str) -> None:
    """Both files of an exec go: its end is known."""
    for ending in (".json", ENDING):
        (container / EXEC_FOLDER / f"{identity}{ending}").unlink(missing_ok=True)


def sweep(container: Path, running: set[str]) -> None:
    """Files of all but these go."""
    for path in (container / EXEC_FOLDER).glob("*"):
        if path.name.lstrip(".").partition(".")[0] not in running:
            path.unlink(missing_ok=True)
