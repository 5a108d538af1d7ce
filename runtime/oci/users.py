"""Who "name|uid[:group|gid]" is, by the image's own /etc/passwd and /etc/group: files of strangers, read with a limit."""

from __future__ import annotations

import os
import stat

from runtime.dataclass import dataclass
from runtime.errors import RuntimeFault

READ_LIMIT = 4 << 20
_MAX_ID = 65_535


@dataclass(frozen=True, slots=True)
class Identity:
    """Ids inside the container, and the home folder ("" unknown)."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = ""


def resolve(user: str, *, passwd: str = "/etc/passwd", group: str = "/etc/group") -> Identity:
    """As Docker does: a name must be known, a number need not be; group memberships count unless a group is given.

    Call it inside the container's root, as the container. Raises RuntimeFault for an unknown name or an id above 65,535.
    """
    name, _, wanted_group = user.partition(":")
    name = name or "0"
    accounts, groups = _table(passwd, 7), _table(group, 4)
    account = next((a for a in accounts if a[0] == name), None)
    if account is None and name.isdigit():
        account = next((a for a in accounts if a[2] == name), None)
    if account is None and not name.isdigit():
        raise RuntimeFault(f"unable to find user {name}: no matching entries in passwd file")
    uid = _id(account[2] if account else name)
    home = account[5] if account else ""
    if wanted_group:
        return Identity(uid, _group_id(wanted_group, groups), (), home)
    gid = _id(account[3]) if account else 0
    member = tuple(_id(g[2]) for g in groups if account and account[0] in g[3].split(",") and g[2].isdigit())
    return Identity(uid, gid, member[:64], home)


def _group_id(wanted: str, groups: list[list[str]]) -> int:
    known = next((g[2] for g in groups if g[0] == wanted), None)
    if known is None and not wanted.isdigit():
        raise RuntimeFault(f"unable to find group {wanted}: no matching entries in group file")
    return _id(known or wanted)


def _id(text: str) -> int:
    if not text.isdigit() or len(text) > 5 or int(text) > _MAX_ID:
        raise RuntimeFault(f"the id {text[:20]} is outside 0 to {_MAX_ID}")
    return int(text)


def _table(path: str, columns: int) -> list[list[str]]:
    """Lines of a colon-separated file; none when it is missing or no regular file (a pipe would never end)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        text = os.read(fd, READ_LIMIT).decode(errors="replace")
    finally:
        os.close(fd)
    rows = (line.split(":") for line in text.splitlines() if not line.startswith("#"))
    return [row for row in rows if len(row) >= columns]
