"""An image of three layers as a driver keeps them, whiteouts and all, and what its root holds."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from runtime.storage.driver import Driver

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep, revision 2
BIG = 1 << 20


def chain(number: int) -> str:
    """Any chain id."""
    return f"sha256:{number:064x}"


def whiteout(path: Path) -> None:
    """As extraction writes it."""
    os.mknod(path, stat.S_IFCHR | 0o000, os.makedev(0, 0))


def add(driver: Driver, number: int, fill: Callable[[Path], None]) -> str:
    """Commit a layer; its chain id."""
    draft = driver.new_layer()
    fill(draft.path)
    digest = hashlib.sha256(f"{number}".encode()).hexdigest()
    driver.commit_layer(draft, chain_id=chain(number), diff_id=f"sha256:{digest}", size_bytes=1)
    return chain(number)


def _write(path: Path, text: str, *, owner: int = 0, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.chown(path, owner, owner)
    path.chmod(mode)
    os.utime(path, ns=(10**18, 10**18 + 123_456_789))


def _first(root: Path) -> None:
    _write(root / "etc/conf", "one\n", owner=1000, mode=0o640)
    os.setxattr(root / "etc/conf", "user.note", b"kept")
    _write(root / "bin/tool", "tool", mode=0o4755)
    _write(root / "bin/cap", "cap", mode=0o755)
    os.setxattr(root / "bin/cap", "security.capability", CAPABILITY)
    _write(root / "data/big", "x" * BIG)
    for name in ("gone", "stays"):
        _write(root / "data" / name, name)
    _write(root / "opaque/hidden", "hidden")
    _write(root / "folder/sub/deep", "deep")
    _write(root / "swap/file", "a folder before")
    _write(root / "links/one", "linked")
    os.link(root / "links/one", root / "links/two")
    (root / "links/symbolic").symlink_to("/etc/conf")
    (root / "links/loop").symlink_to("loop")
    os.mkfifo(root / "data/fifo", 0o600)
    _write(root / os.fsdecode(b"data/\xff\xfe"), "no text")


def _second(root: Path) -> None:
    (root / "data").mkdir(mode=0o750)
    whiteout(root / "data/gone")
    _write(root / "opaque/shown", "shown")
    os.setxattr(root / "opaque", "trusted.overlay.opaque", b"y")
    _write(root / "swap", "a file now")
    _write(root / "etc/second", "two")


def _third(root: Path) -> None:
    _write(root / "top", "top", owner=65_534)


def build(driver: Driver) -> list[str]:
    """Chain ids, lowest first."""
    return [add(driver, number, fill) for number, fill in enumerate((_first, _second, _third), 1)]
