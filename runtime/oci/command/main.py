"""The command line's way from its words to the functions that carry them out, and from errors to an exit status."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable

from runtime.errors import RuntimeFault
from runtime.oci.command import arguments
from runtime.oci.command.log import Log
from runtime.oci.command.store import OCI_VERSION, CommandFault, Store
from runtime.oci.handshake import Failed, StartFailed

VERSION = "0.1.0"
_EXEC_FAILED = 255  # as runc, so that no code of the program's means it

type Carrier = Callable[[Store, argparse.Namespace, Log], int]

# By module and function: what the others need is not loaded.
_COMMANDS = {
    "create": "making.create", "start": "making.start", "run": "making.run",
    "kill": "ending.kill", "delete": "ending.delete", "pause": "ending.pause", "resume": "ending.resume",
    "exec": "execing.execute", "update": "changing.update",
    "state": "looking.state", "list": "looking.listing", "ps": "looking.processes", "events": "looking.events",
    "spec": "looking.example", "features": "looking.features",
}  # fmt: skip


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    options = arguments.parse(argv)
    log = Log(options.log, options.log_format == "json", options.debug)
    if options.version:
        print(f"moorage-oci version {VERSION}\nspec: {OCI_VERSION}")
        return 0
    try:
        return _carry_out(options, log)
    except StartFailed as error:
        log.failure(f"{options.command}: {error}")
    except OSError as error:
        log.failure(f"{options.command}: {Failed.of('', error).text}")
    except RuntimeFault as error:
        log.failure(f"{options.command}: {error}")
    return _EXEC_FAILED if options.command == "exec" else 1


def _carry_out(options: argparse.Namespace, log: Log) -> int:
    if options.command is None:
        arguments.print_help(sys.stderr)
        return 1
    if options.systemd_cgroup or options.cgroup_manager == "systemd":
        raise CommandFault("systemd's cgroup manager is not supported.", "Use --cgroup-manager cgroupfs.")
    carrier = _COMMANDS.get(options.command)
    if carrier is None:
        raise CommandFault(f"{options.command} is not supported.")
    return _function(carrier)(Store(options.root), options, log)


def _function(path: str) -> Carrier:
    module, _, name = path.partition(".")
    found: Carrier = getattr(importlib.import_module(f"runtime.oci.command.{module}"), name)
    return found
