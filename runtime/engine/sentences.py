"""Ends and limits in words, with the figures and the way out."""

from __future__ import annotations

import signal
import time

from runtime.oci.state import ExitRecord


def size(amount: int) -> str:
    """Bytes as people read them: `512 MB`, `1.5 GB` (powers of 1024, as limits are given)."""
    value, unit = float(amount), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1024 or unit == "TB":
            break
        value /= 1024
    return f"{value:.1f}".rstrip("0").rstrip(".") + f" {unit}" if value < 10 else f"{value:.0f} {unit}"


def clock(ns: int) -> str:
    """`14:02:11`, UTC."""
    return time.strftime("%H:%M:%S", time.gmtime(ns // 10**9))


def end_sentence(end: ExitRecord, note: str) -> str:
    """How a container ended, when the exit code alone does not say; "" when it does."""
    if end.oom_killed:
        limit = size(end.memory_limit_bytes) if end.memory_limit_bytes else "the memory there is"
        return (
            note
            or f"Killed at {clock(end.finished_ns)} UTC: used {limit} of {limit} of memory. Give it a larger memory limit."
        )
    if end.unknown:
        return end.reason or "Its monitor was killed; how it ended is unknown."
    if end.signal:
        try:
            name = signal.Signals(end.signal).name
        except ValueError:
            name = f"signal {end.signal}"
        return f"Ended at {clock(end.finished_ns)} UTC by {name}."
    return end.reason


def oom_sentence(ns: int, process: str, used: int, allowed: int, level: str) -> str:
    """A process killed for want of memory: `level` is instance, app or team."""
    whose = {"instance": "its limit", "app": "the app's limit", "team": "the team's limit"}[level]
    who = process or "a process"
    return f"{who} was killed at {clock(ns)} UTC: used {size(used)} of {size(allowed)} of memory ({whose}). Give more memory, or use less."


def pids_sentence(used: int, allowed: int) -> str:
    """A fork that was refused."""
    return f"{used} of {allowed} processes are in use: a new one was refused. Start fewer, or take a plan with more."


def cpu_sentence(share: float, window_s: float, cores: float) -> str:
    """Heavy throttling over a window."""
    return f"Slowed for {share:.0%} of the last {window_s:.0f} s: it wants more than {cores:g} CPU. Take a plan with more CPU."


def disk_sentence(used: int, allowed: int) -> str:
    """A writable layer that is full."""
    return f"The disk is full: {size(used)} of {size(allowed)} are used and writes fail. Delete files, or take a larger disk."
