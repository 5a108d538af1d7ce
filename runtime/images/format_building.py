"""Configs of images that are made here: by commit, by import, or of a root file system without one. Pure.

`--change` takes Dockerfile instructions (Docker's reference of the Dockerfile, those that `docker commit` names).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, Final

from runtime.images.format_digest import ImageFault

EPOCH: Final = "1970-01-01T00:00:00Z"
_SHELL: Final = ["/bin/sh", "-c"]
_PORT = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_NANOSECONDS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_CHECK_FIELDS: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def new_config(
    base: dict[str, Any], diff_id: str, *, run: dict[str, Any], architecture: str, created: str, history: dict[str, Any]
) -> bytes:
    """The config of `base` ({} for none) with one more layer; `run` is its "config", `history` says how the layer came."""
    rootfs = base.get("rootfs") or {}
    kept = {key: base[key] for key in ("architecture", "variant", "os", "author") if base.get(key)}
    author = {"author": history["author"]} if history.get("author") else {}
    document = {
        "architecture": architecture,
        "os": "linux",
        **kept,
        **author,
        "created": created,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [*(rootfs.get("diff_ids") or []), diff_id]},
        "history": [*(base.get("history") or []), {"created": created} | {k: v for k, v in history.items() if v}],
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def rootfs_config(diff_id: str, architecture: str) -> bytes:
    """The config of a plain root file system, the same for the same bytes; its command is given when it is deployed."""
    history = {"created_by": "a root file system, uploaded"}
    return new_config({}, diff_id, run={}, architecture=architecture, created=EPOCH, history=history)


def legacy_config(layers: Sequence[dict[str, Any]], diff_ids: Sequence[str], architecture: str) -> bytes:
    """The config of an image of Docker before 1.10, of the JSON documents of its layers, lowest first."""
    top = layers[-1]
    document = {
        "architecture": top.get("architecture") or architecture,
        "os": top.get("os") or "linux",
        "created": top.get("created") or EPOCH,
        "config": top.get("config") or {},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [_legacy_step(layer) for layer in layers],
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _legacy_step(layer: dict[str, Any]) -> dict[str, Any]:
    made_by = layer.get("container_config")
    command = made_by.get("Cmd") if isinstance(made_by, dict) else None
    words = [word for word in command if isinstance(word, str)] if isinstance(command, list) else []
    step = {"created": layer.get("created") or EPOCH, "created_by": " ".join(words)}
    return {key: value for key, value in step.items() if isinstance(value, str) and value}


def apply_changes(run: dict[str, Any], changes: Sequence[str]) -> None:
    """Carry out instructions on an image's "config"; raises ImageFault for one that is unknown or cannot be read."""
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        make = _INSTRUCTIONS.get(word.upper())
        if make is None:
            raise ImageFault(
                f"{word[:40]!r} is no instruction that may be changed.", f"Use one of {', '.join(_INSTRUCTIONS)}."
            )
        try:
            make(run, rest.strip())
        except ValueError as error:
            raise ImageFault(f"The change {change[:200]!r} cannot be read ({error}).") from error


def _words(run: dict[str, Any], text: str) -> list[str]:
    """A command: a JSON list, else a line for the shell."""
    listed = _listed(text)
    if listed is not None:
        return listed
    if not text:
        raise ValueError("nothing follows")
    return [*(run.get("Shell") or _SHELL), text]


def _listed(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    found = json.loads(text)
    if not all(isinstance(item, str) for item in found):
        raise ValueError("a list of strings is wanted")
    return list(found)


def _pairs(text: str) -> dict[str, str]:
    """`A=1 B="two words"`, or the old form `A the rest`."""
    name, space, rest = text.partition(" ")
    if "=" not in name and space:
        return {name: rest.strip()}
    found = {}
    for word in shlex.split(text):
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise ValueError("NAME=value is wanted")
        found[key] = value
    if not found:
        raise ValueError("nothing follows")
    return found


def _command(key: str) -> Callable[[dict[str, Any], str], None]:
    def change(run: dict[str, Any], text: str) -> None:
        run[key] = _words(run, text)

    return change


def _text(key: str) -> Callable[[dict[str, Any], str], None]:
    def change(run: dict[str, Any], text: str) -> None:
        if not text:
            raise ValueError("nothing follows")
        run[key] = text

    return change


def _env(run: dict[str, Any], text: str) -> None:
    found = dict(entry.partition("=")[::2] for entry in run.get("Env") or [])
    run["Env"] = [f"{key}={value}" for key, value in (found | _pairs(text)).items()]


def _label(run: dict[str, Any], text: str) -> None:
    run["Labels"] = (run.get("Labels") or {}) | _pairs(text)


def _expose(run: dict[str, Any], text: str) -> None:
    ports = text.split()
    if not ports or not all(_PORT.fullmatch(port) for port in ports):
        raise ValueError("ports like 80 or 53/udp are wanted")
    names = (port.lower() if "/" in port else f"{port}/tcp" for port in ports)
    run["ExposedPorts"] = (run.get("ExposedPorts") or {}) | {name: {} for name in names}


def _volume(run: dict[str, Any], text: str) -> None:
    paths = _listed(text) or text.split()
    if not paths:
        raise ValueError("nothing follows")
    run["Volumes"] = (run.get("Volumes") or {}) | {path: {} for path in paths}


def _workdir(run: dict[str, Any], text: str) -> None:
    if not text:
        raise ValueError("nothing follows")
    before = run.get("WorkingDir") or "/"
    run["WorkingDir"] = text if text.startswith("/") else f"{before.rstrip('/')}/{text}"


def _healthcheck(run: dict[str, Any], text: str) -> None:
    check: dict[str, Any] = {}
    while text.startswith("--"):
        option, _, text = text[2:].partition(" ")
        name, _, value = option.partition("=")
        if name == "retries":
            check["Retries"] = int(value)
        elif name in _CHECK_FIELDS:
            check[_CHECK_FIELDS[name]] = _duration(value)
        else:
            raise ValueError(f"--{name} is unknown")
        text = text.strip()
    word, _, rest = text.partition(" ")
    if word.upper() == "NONE":
        check["Test"] = ["NONE"]
    elif word.upper() == "CMD" and rest.strip():
        listed = _listed(rest.strip())
        check["Test"] = ["CMD", *listed] if listed is not None else ["CMD-SHELL", rest.strip()]
    else:
        raise ValueError("NONE or CMD is wanted")
    run["Healthcheck"] = check


def _duration(text: str) -> int:
    found = _DURATION.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise ValueError(f"{text!r} is no duration")
    return int(sum(float(number) * _NANOSECONDS[unit] for number, unit in found))


def _onbuild(run: dict[str, Any], text: str) -> None:
    if not text:
        raise ValueError("nothing follows")
    run["OnBuild"] = [*(run.get("OnBuild") or []), text]


_INSTRUCTIONS: Final[dict[str, Callable[[dict[str, Any], str], None]]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _text("StopSignal"),
    "USER": _text("User"),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
