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


# Limits that were hit. `level` is instance, app or team: whose limit it was.

SHARED = {"instance": "", "app": " shared by all instances of this app", "team": " shared by all apps of this team"}


def way_out(level: str, less: str, more: str) -> str:
    """What can be done: the plan is the app's own affair, a team's quota the operator's."""
    if level == "team":
        return f"{less}, stop another app of the team, or ask for a larger quota."
    return f"{less}, or take a plan with {more}."


def bits(rate: float) -> str:
    """Bits per second as people read them: `1.5 Mbit/s` (powers of 1000, as rates are given)."""
    unit = ""
    for unit in ("", "k", "M", "G"):
        if rate < 1000 or unit == "G":
            break
        rate /= 1000
    return f"{rate:.3g} {unit}bit/s"


def span(seconds: float) -> str:
    """`4 s`, `1 min`."""
    return f"{seconds:.0f} s" if seconds < 59 else f"{seconds / 60:.0f} min"


def oom_sentence(ns: int, process: str, allowed: int, level: str, *, whole: bool = False, kills: int = 1) -> str:
    """A process killed for want of memory, or with it the whole instance; `kills` counts those since it was last said."""
    what = f"{process or 'a process'} was killed at {clock(ns)} UTC"
    if whole:
        what += ", and the whole instance with it"
    if kills > 1:
        what += f", the last of {kills} kills"
    figures = f"{size(allowed)} of {size(allowed)} of memory{SHARED[level]}"
    return f"{what}: used {figures}. {way_out(level, 'Use less', 'more memory')}"


def memory_full(used: int, allowed: int, level: str) -> str:
    """Memory that is full without a kill."""
    return (
        f"Memory is full: {size(used)} of {size(allowed)}{SHARED[level]} are in use and more is asked for, which slows it. "
        f"The next step is a kill. {way_out(level, 'Use less', 'more memory')}"
    )


def memory_high(mark: int, level: str) -> str:
    """Memory above the mark where the kernel slows."""
    return (
        f"Slowed for its memory: more than {size(mark)}{SHARED[level]} (memory.high) are in use, so who asks for more has to "
        f"wait. {way_out(level, 'Use less', 'more memory')}"
    )


def swap(allowed: int, memory: int, level: str) -> str:
    """Swap that is used up."""
    return (
        f"Swap is full: all {size(allowed)} beside the {size(memory)} of memory{SHARED[level]} are in use. "
        f"The next step is a kill. {way_out(level, 'Use less', 'more memory')}"
    )


def pids(allowed: int, refused: int, seconds: float, level: str) -> str:
    """Processes or threads that were refused."""
    what = f"{refused} more {'was' if refused == 1 else 'were'} refused in {span(seconds)}"
    limit = f"The limit of {allowed} processes and threads{SHARED[level]} was reached"
    return f"{limit}: {what}. {way_out(level, 'Start fewer', 'more processes')}"


def cpu(share: float, seconds: float, cores: float, level: str) -> str:
    """Heavy throttling."""
    its = f"its {cores:g} CPU" if level == "instance" else f"the {cores:g} CPU{SHARED[level]}"
    return (
        f"Slowed in {share:.0%} of the last {span(seconds)}: it wants more than {its}. "
        f"{way_out(level, 'Do less at once', 'more CPU')}"
    )


def disk_rate(doing: str, rate: float, allowed: int, seconds: float, level: str, *, in_bytes: bool) -> str:
    """Reading or writing as fast as it may."""
    figures = (
        f"{size(int(rate))}/s of {size(allowed)}/s" if in_bytes else f"{rate:.0f} of {allowed} operations a second"
    )
    less = ("Read" if doing.startswith("R") else "Write") + (" less" if in_bytes else " in larger pieces")
    held = f"{doing} is held back: {figures}{SHARED[level]} over {span(seconds)}"
    return f"{held}. {way_out(level, less, 'a faster disk')}"


def network(doing: str, rate: float, allowed: int, seconds: float, dropped: int) -> str:
    """Sending or receiving as fast as it may."""
    lost = f", {dropped} packets were dropped" if dropped else ""
    less = "Send less" if doing.startswith("S") else "Fetch less"
    figures = f"{bits(rate)} of {bits(allowed)} over {span(seconds)}{lost}"
    return f"{doing} is held back: {figures}. {way_out('instance', less, 'a faster network')}"


def disk_sentence(used: int, allowed: int) -> str:
    """A writable layer that is full."""
    return f"The disk is full: {size(used)} of {size(allowed)} are used and writes fail. Delete files, or take a plan with a larger disk."
