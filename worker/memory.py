"""What a worker remembers over its own restarts, so that a host comes back without a portal: 0600 files in `<state>/worker/`."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

from worker.protocol import Desired

log = logging.getLogger(__name__)


class Memory:
    """The last desired state (with its secrets, which the engine's records hold too) and restarts carried out."""

    def __init__(self, folder: Path) -> None:
        self._desired = folder / "desired.json"
        self._restarts = folder / "restarts.json"
        self._images = folder / "images.json"
        self._writing = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def desired(self) -> Desired | None:
        """The last one kept; None when there is none or it cannot be read."""
        try:
            return Desired.from_json(json.loads(self._desired.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is left aside: %s", self._desired, error)
            return None

    def keep_desired(self, desired: Desired) -> None:
        """Write it whole or not at all."""
        _write(self._desired, json.dumps(desired.to_json(), separators=(",", ":")))

    def restarts(self) -> dict[str, int]:
        """Restart generation carried out, by instance; without it a restart may happen once more."""
        try:
            return {str(k): int(v) for k, v in json.loads(self._restarts.read_bytes()).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def keep_restarts(self, found: dict[str, int]) -> None:
        """Write them whole or not at all."""
        with self._writing:
            _write(self._restarts, json.dumps(found))

    def images(self) -> dict[str, float]:
        """When each image of the host was needed last, by id."""
        try:
            return {str(k): float(v) for k, v in json.loads(self._images.read_bytes()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def keep_images(self, found: dict[str, float]) -> None:
        """Write them whole or not at all."""
        _write(self._images, json.dumps(found))


def _write(path: Path, text: str) -> None:
    """A disk that is full costs what the next worker would know, not this one's work: the file before stays."""
    temporary = path.with_suffix(".new")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        log.warning("%s could not be written: %s", path, error)
        temporary.unlink(missing_ok=True)
