"""What an image's config says: the command, the port, the user (image-spec config.md, Docker's image spec v1.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.images import format_json as js
from runtime.images.format_digest import MAX_LAYERS, ImageFault, chain_ids, check_digest

_PORT = re.compile(r"([0-9]{1,5})(?:-[0-9]{1,5})?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_MAX_NS = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """HEALTHCHECK of an image. `test` begins with NONE, CMD or CMD-SHELL; times are nanoseconds, 0 means Docker's default."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image's config, checked. `exposed_ports` are as written ("80/tcp"); `diff_ids` go from the lowest layer up."""

    architecture: str = ""
    os: str = "linux"
    variant: str = ""
    created: str = ""
    author: str = ""
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    shell: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    diff_ids: tuple[str, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()

    @property
    def port(self) -> int | None:
        """The lowest TCP port the image exposes; None when it exposes none."""
        found = [_PORT.fullmatch(text) for text in self.exposed_ports]
        ports = [int(match[1]) for match in found if match and (match[2] or "tcp").lower() == "tcp"]
        return min((port for port in ports if 0 < port < 65536), default=None)

    @property
    def command(self) -> tuple[str, ...]:
        """ENTRYPOINT followed by CMD: what a container runs when nothing else is asked."""
        return (self.entrypoint or ()) + (self.cmd or ())

    @property
    def chain_ids(self) -> tuple[str, ...]:
        """Chain ids of the layers, lowest first."""
        return chain_ids(self.diff_ids)


def _command(value: Any, what: str) -> tuple[str, ...] | None:
    if isinstance(value, str):  # very old images have a string
        value = [value]
    return None if value is None else js.texts_of(value, what)


def _healthcheck(value: Any) -> Healthcheck | None:
    if value is None:
        return None
    data = js.expect_object(value, "Healthcheck of the image")

    def nanoseconds(key: str) -> int:
        return js.number_of(data.get(key), f"Healthcheck.{key} of the image", limit=_MAX_NS)

    return Healthcheck(
        test=js.texts_of(data.get("Test"), "Healthcheck.Test of the image"),
        interval_ns=nanoseconds("Interval"),
        timeout_ns=nanoseconds("Timeout"),
        start_period_ns=nanoseconds("StartPeriod"),
        start_interval_ns=nanoseconds("StartInterval"),
        retries=js.number_of(data.get("Retries"), "Healthcheck.Retries of the image", limit=1_000_000),
    )


def _diff_ids(document: Mapping[str, Any]) -> tuple[str, ...]:
    rootfs = js.expect_object(document.get("rootfs"), "rootfs of the image config")
    found = js.expect_list(rootfs.get("diff_ids"), "rootfs.diff_ids of the image config")
    if len(found) > MAX_LAYERS:
        raise ImageFault(f"The image has {len(found)} layers; {MAX_LAYERS} is the limit.", "Squash it when building.")
    return tuple(check_digest(item, "rootfs.diff_ids of the image config") for item in found)


def _environment(value: Any) -> tuple[str, ...]:
    entries = js.texts_of(value, "Env of the image")
    for entry in entries:
        if "=" not in entry[1:]:
            raise ImageFault(f"Env of the image has {entry[:60]!r}, which is not NAME=value.")
    return entries


def parse_config(data: bytes) -> ImageConfig:
    """Read an image config; raises ImageFault when it is none, or is for another operating system than Linux."""
    document = js.parse_object(data, "The image config")
    run = js.expect_object(document.get("config") or {}, "config of the image config")
    system = js.text_of(document.get("os"), "os of the image config") or "linux"
    if system != "linux":
        raise ImageFault(f"The image is for {system[:40]}.", "Only Linux images run here.")
    return ImageConfig(
        architecture=js.text_of(document.get("architecture"), "architecture of the image config"),
        os=system,
        variant=js.text_of(document.get("variant"), "variant of the image config"),
        created=js.text_of(document.get("created"), "created of the image config"),
        author=js.text_of(document.get("author"), "author of the image config"),
        entrypoint=_command(run.get("Entrypoint"), "Entrypoint of the image"),
        cmd=_command(run.get("Cmd"), "Cmd of the image"),
        env=_environment(run.get("Env")),
        user=js.text_of(run.get("User"), "User of the image"),
        working_dir=js.text_of(run.get("WorkingDir"), "WorkingDir of the image"),
        exposed_ports=js.keys_of(run.get("ExposedPorts"), "ExposedPorts of the image"),
        volumes=js.keys_of(run.get("Volumes"), "Volumes of the image"),
        labels=js.mapping_of(run.get("Labels"), "Labels of the image"),
        stop_signal=js.text_of(run.get("StopSignal"), "StopSignal of the image"),
        shell=js.texts_of(run.get("Shell"), "Shell of the image"),
        healthcheck=_healthcheck(run.get("Healthcheck")),
        diff_ids=_diff_ids(document),
        history=tuple(
            js.expect_object(item, "history of the image config")
            for item in js.expect_list(document.get("history"), "history of the image config")
        ),
    )
