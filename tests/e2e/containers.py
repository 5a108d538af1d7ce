"""What is true inside a running container, read there through the engine's socket."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from scripts.trial import Trial

WITHIN_S = 100
KERNEL_LIMITS = """
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | head -n 1
cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu*/cpu.cfs_quota_us 2>/dev/null | head -n 1 | cut -d ' ' -f 1
df -k / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4
"""


def _command(platform: Trial, instance: str, script: str) -> list[str]:
    return ["docker", "-H", f"unix://{platform.engine_socket}", "exec", instance, "sh", "-c", script]


def inside(platform: Trial, instance: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in a container."""
    command = _command(platform, instance, script)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=WITHIN_S)


@contextmanager
def busy(platform: Trial, instance: str, *scripts: str) -> Iterator[None]:
    """Shell lines that run in a container meanwhile; those that do not end by themselves are to look for /tmp/enough."""
    assert inside(platform, instance, "rm -f /tmp/enough").returncode == 0
    running = [subprocess.Popen(_command(platform, instance, script), stdin=subprocess.DEVNULL) for script in scripts]
    try:
        yield
    finally:
        inside(platform, instance, "touch /tmp/enough")
        for process in running:
            process.wait(timeout=WITHIN_S)


def kernel_limits(platform: Trial, instance: str) -> tuple[int, int, int]:
    """Memory (bytes), CPU (microseconds in 100 ms) and free disk (bytes) as the running container itself sees them."""
    done = inside(platform, instance, KERNEL_LIMITS)
    assert done.returncode == 0, done.stderr
    memory, quota, free_kib = (int(figure) for figure in done.stdout.split())
    return memory, quota, free_kib * 1024
