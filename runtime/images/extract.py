"""The child that unpacks one layer: `python -m runtime.images.extract`, started by `runtime.images.extraction`.

Standard input is the layer, plain, gzip or zstd. Argument: a JSON object with the limits and `root`, the descriptor of the
empty target. Before the first byte is read the process is chrooted into it and has lost everything but the rights to write
files for any owner. Standard output is one JSON object: what was unpacked, or the fault.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import resource
import sys
import threading
from collections.abc import Iterator
from typing import Any

from runtime.images.extract_layer import LayerLimits, LayerWriter
from runtime.images.format_digest import ImageFault
from runtime.images.format_stream import StreamLimits, Unpacker
from runtime.images.format_tar import TarLimits, TarReader
from runtime.kernel import capabilities, seccomp, syscalls

KEPT_CAPABILITIES = tuple(f"CAP_{name}" for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"))
NOBODY = 65534
CHUNK_BYTES = 1 << 20
_QUEUED = 8
_MEMORY_BYTES = 1 << 30  # a zstd window takes up to 128 MiB of it
_OPEN_FILES = 256
_CLONE_THREAD = 0x00010000
# Nothing here needs a network, another process or a mount; these answer EPERM.
_REFUSED_CALLS = (
    *("execve", "execveat", "fork", "vfork", "socket", "socketpair", "connect", "bind", "ptrace", "kill", "tkill"),
    *("process_vm_readv", "process_vm_writev", "pidfd_open", "pidfd_send_signal", "pidfd_getfd", "mount", "umount2"),
    *(
        "move_mount",
        "open_tree",
        "fsopen",
        "fsmount",
        "mount_setattr",
        "pivot_root",
        "chroot",
        "unshare",
        "setns",
        "bpf",
    ),
    *("keyctl", "add_key", "request_key", "init_module", "finit_module", "kexec_load", "io_uring_setup", "userfaultfd"),
    *("perf_event_open", "swapon", "swapoff", "reboot", "open_by_handle_at", "name_to_handle_at"),
)


def confine(root: int, file_bytes: int) -> None:
    """Chroot into `root` and give up every right that writing files does not need."""
    from backports import zstd  # noqa: F401  (after the chroot nothing can be imported)
    from isal import igzip_lib  # noqa: F401

    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_FSIZE, file_bytes),
    ):
        resource.setrlimit(kind, (limit, limit))
    os.fchdir(root)
    os.chroot(".")
    os.umask(0)
    kept = capabilities.mask(KEPT_CAPABILITIES)
    capabilities.drop_bounding(kept)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    capabilities.apply(effective=kept, permitted=kept, inheritable=0)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp(_filter())


def _filter() -> bytes:
    """The system calls that are refused; threads may be made, processes not (clone3 hides its flags: the C library does without)."""
    refuse = seccomp.Rule((), seccomp.errno_action(errno.EPERM))
    absent = seccomp.errno_action(errno.ENOSYS)
    rules: dict[str, tuple[seccomp.Rule, ...]] = dict.fromkeys(_REFUSED_CALLS, (refuse,))
    thread = seccomp.Condition(0, "MASKED_EQ", _CLONE_THREAD, _CLONE_THREAD)
    rules["clone"] = (seccomp.Rule((thread,), seccomp.ALLOW), refuse)
    rules["clone3"] = (seccomp.Rule((), absent),)
    return seccomp.build(rules, seccomp.ALLOW, machine=os.uname().machine, newer=absent)


class _Pipeline:
    """Reads, decompresses and hashes in a thread of its own while the caller writes files."""

    def __init__(self, source: int, limits: StreamLimits) -> None:
        self._source = source
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_QUEUED)
        self._hash = hashlib.sha256()
        self.unpacker = Unpacker(limits)
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def diff_id(self) -> str:
        """Digest of the plain bytes, once all were read."""
        return f"sha256:{self._hash.hexdigest()}"

    def pieces(self) -> Iterator[bytes]:
        """The plain bytes; raises what the thread ran into."""
        while (piece := self._queue.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def _run(self) -> None:
        try:
            while chunk := os.read(self._source, CHUNK_BYTES):
                self._pass_on(self.unpacker.feed(chunk))
            self._pass_on(self.unpacker.close())
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001  (it is raised again in the main thread)
            self._queue.put(error)

    def _pass_on(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            self._hash.update(piece)
            self._queue.put(piece)


def unpack(root: int, source: int, limits: LayerLimits) -> dict[str, Any]:
    """Unpack the layer on `source` below `root`; returns what `extraction.Unpacked` holds."""
    writer = LayerWriter(root, limits)
    reader = TarReader(writer, TarLimits(entries=limits.max_entries, file_bytes=limits.max_bytes))
    # headers and padding come on top of the files' bytes
    stream = StreamLimits(max_bytes=limits.max_bytes + limits.max_entries * 2048, ratio=limits.ratio)
    pipeline = _Pipeline(source, stream)
    for piece in pipeline.pieces():
        reader.feed(piece)
    reader.close()
    writer.close()
    return {
        "diff_id": pipeline.diff_id,
        "size_bytes": writer.size_bytes,
        "entries": reader.entries,
        "compression": pipeline.unpacker.compression,
        "opaque": [os.fsdecode(path) for path in writer.opaque],
    }


def main() -> None:
    """Run as the child: confine, unpack, answer."""
    options = json.loads(sys.argv[1])
    root = options.pop("root")
    limits = LayerLimits(**options)
    answer: dict[str, Any]
    try:
        confine(root, limits.max_bytes)
        answer = unpack(root, 0, limits)
    except ImageFault as fault:
        answer = {"fault": fault.message, "hint": fault.hint}
    except MemoryError:
        answer = {
            "fault": "The layer needs more memory to unpack than it may take.",
            "hint": "It was refused as a bomb.",
        }
    except OSError as error:
        answer = {"fault": f"The layer could not be written: {error.strerror}.", "errno": error.errno}
    os.write(1, json.dumps(answer).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
