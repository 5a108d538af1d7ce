"""What a container runs: the image's configuration with the request laid over it, by Docker's rules."""

from __future__ import annotations

from runtime.engine.errors import Invalid
from runtime.engine.healthcheck import merged
from runtime.engine.records import Process
from runtime.engine.request import ContainerConfig
from runtime.images.format import ImageConfig
from runtime.oci.spec import DEFAULT_PATH


def merge(config: ContainerConfig, image: ImageConfig, hostname: str) -> Process:
    """The process to run. An entrypoint in the request drops the image's command; raises Invalid when nothing is left to run."""
    entrypoint, command = image.entrypoint or (), image.cmd or ()
    if config.entrypoint is not None:
        entrypoint, command = tuple(config.entrypoint), ()
        if entrypoint == ("",):
            entrypoint = ()
    if config.cmd:
        command = config.cmd
    args = (*entrypoint, *command)
    if not args or not args[0]:
        raise Invalid("No command specified.", "The image has none: give Cmd or Entrypoint.")
    ports = dict.fromkeys((*plain_ports(image.exposed_ports), *config.exposed_ports))
    return Process(
        args=args,
        env=environment(image.env, config.env, hostname, tty=config.tty),
        cwd=config.workdir or image.working_dir or "/",
        user=config.user or image.user,
        stop_signal=config.stop_signal or image.stop_signal or "SIGTERM",
        labels={**image.labels, **config.labels},
        exposed_ports=tuple(ports),
        health=merged(config.healthcheck, image.healthcheck),
        shell=image.shell,
        volumes=image.volumes,
    )


def environment(image: tuple[str, ...], asked: tuple[str, ...], hostname: str, *, tty: bool = False) -> tuple[str, ...]:
    """PATH and HOSTNAME first, TERM for a terminal, then the image's, then what was asked for; the last of a name wins. `NAME` alone removes it."""
    found = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname} | ({"TERM": "xterm"} if tty else {})
    for entry in (*image, *asked):
        name, sep, value = entry.partition("=")
        if sep:
            found[name] = value
            continue
        found.pop(name, None)
    return tuple(f"{k}={v}" for k, v in found.items())


def plain_ports(exposed: tuple[str, ...]) -> tuple[str, ...]:
    """An image's exposed ports as `80/tcp`; ranges and SCTP, which nothing here publishes, are left out."""
    found = []
    for text in exposed:
        port, _, protocol = text.lower().partition("/")
        if port.isdigit() and 0 < int(port) < 65536 and protocol in ("", "tcp", "udp"):
            found.append(f"{int(port)}/{protocol or 'tcp'}")
    return tuple(found)
