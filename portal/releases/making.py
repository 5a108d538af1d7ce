"""Making a Release: what an app's image, environment and settings are at one moment."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from django.db.models import Max
from django.utils import timezone

from portal.accounts.actor import Actor
from portal.config import config
from portal.errors import Conflict, Invalid
from portal.hosting.environment import read_environment, seal
from portal.hosting.models import App, Process
from portal.images.models import Image
from portal.releases.models import Release
from worker.protocol import HealthCheck

DEFAULT_PORT = 8080
COMMAND_MAX_LETTERS = 8192
_HTTP_CHECK = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?(/[^\s'\"|;]*)?")


def image_port(image: Image) -> int:
    """The lowest TCP port the image exposes, else 8080."""
    exposed = [entry.partition("/") for entry in image.config.get("exposed_ports") or ()]
    ports = [int(port) for port, _, kind in exposed if port.isdecimal() and kind in {"", "tcp"}]
    return min(ports, default=DEFAULT_PORT)


def health_of(app: App, image: Image) -> HealthCheck:
    """HTTP when the app names a path or the image's HEALTHCHECK asks for a local URL; else a TCP connection."""
    path = app.health_path
    if not path:
        test = (image.config.get("healthcheck") or {}).get("test") or ()
        asked = _HTTP_CHECK.search(" ".join(test))
        path = (asked.group(1) or "/") if asked else ""
    if not path:
        return HealthCheck(kind="tcp")
    return HealthCheck(kind="http", path=path, host_header=config().app_host(app.slug))


def command_of(text: str) -> tuple[str, ...]:
    """A command as people write it: a JSON list of words, or words as a shell reads them. Raises Invalid."""
    try:
        words = json.loads(text) if text.lstrip().startswith("[") else shlex.split(text)
    except ValueError as error:
        raise Invalid(f"The command cannot be read: {error}.", 'Write it like ["/app", "--port", "8080"].') from error
    return checked_command(words)


def checked_command(words: Any) -> tuple[str, ...]:
    """A list of words that can be run; raises Invalid."""
    if not isinstance(words, list) or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise Invalid("command is not a list of words.", 'Send {"command": ["/app", "--port", "8080"]}.')
    if sum(len(word) for word in words) > COMMAND_MAX_LETTERS or (words and not words[0]):
        raise Invalid(f"The command begins with nothing, or has more than {COMMAND_MAX_LETTERS} letters.")
    return tuple(words)


def _command(app: App, image: Image, given: Sequence[str]) -> list[str] | None:
    """What the app runs: what is given, else the image's own (None), else what the release before was given."""
    if given:
        return list(given)
    before = Release.objects.filter(app=app).order_by("-number").first()
    processes: list[dict[str, Any]] = list(before.processes.values()) if before is not None else []
    kept = processes[0].get("command") if processes else None
    runs_itself = bool(image.config.get("command", True))
    if kept and before is not None and (before.image_id == image.pk or not runs_itself):
        return list(kept)
    if not runs_itself:
        raise Invalid(
            "The image names no command, so it cannot start by itself.",
            "Give one: ?command=/path/to/program when you send the archive, or the field on the deploy page.",
            code="no_command",
        )
    return None


def make_release(actor: Actor, app: App, image: Image, note: str, command: Sequence[str] = ()) -> Release:
    """The app's next release; `command` instead of the image's own. The caller holds the app's row. Raises Conflict, Invalid."""
    if image.team_id != app.team_id:
        raise Conflict(f"The image belongs to another team than {app.slug}.")
    if image.kind != "image":
        raise Conflict(f"It is an {image.kind} and cannot be deployed by itself.", "Deploy an image.")
    if not Image.objects.select_for_update(of=("self",), no_key=True).filter(pk=image.pk).exists():
        raise Conflict("The image was removed in this moment, as no release had it.", "Upload it again.")
    Image.objects.filter(pk=image.pk).update(deployed_at=timezone.now())
    last = Release.objects.filter(app=app).aggregate(last=Max("number"))["last"]
    port = app.port or image_port(image)
    health = dataclasses.asdict(health_of(app, image))
    words = _command(app, image, command)
    processes: dict[str, Any] = {
        name: {"command": words, "port": port, "health": health if name == "web" else {"kind": "none"}}
        for name in Process.objects.filter(app=app).values_list("name", flat=True)
    }
    return Release.objects.create(
        app=app,
        number=(last or 0) + 1,
        image=image,
        environment_encrypted=seal(read_environment(app)),
        processes=processes,
        note=note[:255],
        created_by=actor.user,
    )


def newest_release(app: App) -> Release:
    """The release of the deployment that is live, else of the newest one; raises Conflict when nothing was ever deployed."""
    rows = Release.objects.select_related("image").filter(app=app)
    release = rows.filter(deployments__state="live").order_by("-deployments__number").first() or rows.first()
    if release is None:
        raise Conflict(
            f"Nothing has been deployed to {app.slug} yet.", "Upload an image first.", code="nothing_deployed"
        )
    return release
