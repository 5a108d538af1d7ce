"""The operator makes and changes plans by their forms; what runs under them follows."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from scripts.trial import Trial
from tests.e2e.browser import Portal
from tests.e2e.containers import kernel_limits

pytestmark = pytest.mark.e2e

WITHIN_S = 5
MIB = 1 << 20
# Label of the form's field: field of the API, how much one of the form's unit is, what is given at first and later.
LIMITS = {
    "CPU": ("cpu_millicores", 1000, "0.3", "0.45"),
    "CPU weight": ("cpu_weight", 1, "150", "250"),
    "Memory": ("memory_bytes", MIB, "96", "104"),
    "Swap": ("swap_bytes", MIB, "32", "16"),
    "Processes": ("pids", 1, "70", "90"),
    "Writable layer": ("disk_bytes", 1 << 30, "0.125", "0.25"),
    "Read": ("disk_read_bps", 10**6, "11", "21"),
    "Write": ("disk_write_bps", 10**6, "12", "22.5"),
    "Read operations": ("disk_read_iops", 1, "1300", "2300"),
    "Write operations": ("disk_write_iops", 1, "1400", "2400"),
    "In": ("net_in_bps", 10**6, "15", "25"),
    "Out": ("net_out_bps", 10**6, "16", "26"),
    "Log rate": ("log_bytes_per_s", 10**6, "0.2", "0.3"),
    "Log on disk": ("log_bytes", 10**6, "21", "31"),
    "Logs": ("log_days", 1, "3", "5"),
    "Instances": ("instances_max", 1, "2", "3"),
    "Domains": ("domains_max", 1, "4", "6"),
    "Releases": ("releases_kept", 1, "7", "9"),
}


def test_a_plan_changed_on_its_page_reaches_the_running_container_within_five_seconds(
    portal: Portal, platform: Trial, demo_archive: Path
) -> None:
    assert platform.call("POST", "/api/v1/apps", {"app": "follows", "plan": "nano", "team": "admin"})[0] == 201
    assert platform.deploy("follows", demo_archive)[0] == 201
    before = platform.call("GET", "/api/v1/plans/nano")[1]
    [instance] = [i["id"] for i in platform.call("GET", "/api/v1/apps/follows/instances")[1]]
    _, _, free_bytes = kernel_limits(platform, instance)
    portal.page.goto(f"{platform.url}/operator/plans/nano")
    portal.page.get_by_label("CPU", exact=True).fill("0.35")
    portal.page.get_by_label("Memory", exact=True).fill("112")
    portal.page.get_by_label("Writable layer").fill(f"{(before['disk_bytes'] + (64 << 20)) / (1 << 30):.3f}")
    try:
        saved = time.monotonic()
        portal.page.get_by_role("button", name="Save as version").click()
        seen = kernel_limits(platform, instance)
        while not (seen[:2] == (112 << 20, 35_000) and seen[2] > free_bytes + (60 << 20)):
            assert time.monotonic() - saved < WITHIN_S, f"after {WITHIN_S} s: {seen}, before: {free_bytes} free"
            seen = kernel_limits(platform, instance)
        [still] = platform.call("GET", "/api/v1/apps/follows/instances")[1]
        assert (still["id"], still["state"]) == (instance, "healthy")
    finally:
        kept = ("cpu_millicores", "memory_bytes", "disk_bytes")
        platform.call("PATCH", "/api/v1/plans/nano", {name: before[name] for name in kept})


def filled(portal: Portal, column: int) -> dict[str, int]:
    """Write a column of LIMITS into the form; returns what the API is to say of the plan then."""
    for label, limit in LIMITS.items():
        portal.page.get_by_label(label, exact=True).fill(limit[column])
    return {limit[0]: round(float(limit[column]) * limit[1]) for limit in LIMITS.values()}


def holds(platform: Trial, plan: str) -> dict[str, int]:
    """The plan's limits as the API says them."""
    status, answer = platform.call("GET", f"/api/v1/plans/{plan}")
    assert status == 200, answer
    return {limit[0]: answer[limit[0]] for limit in LIMITS.values()}


def in_the_engine(plan: dict[str, int]) -> dict[str, int]:
    """What the engine is to hold a container of the plan to, in its own names and units."""
    return {
        "NanoCpus": plan["cpu_millicores"] * 10**6, "CpuShares": plan["cpu_weight"] * 1024 // 100,
        "Memory": plan["memory_bytes"], "MemorySwap": plan["memory_bytes"] + plan["swap_bytes"], "PidsLimit": plan["pids"],
        "DiskSize": plan["disk_bytes"], "DiskReadBps": plan["disk_read_bps"], "DiskWriteBps": plan["disk_write_bps"],
        "DiskReadIOps": plan["disk_read_iops"], "DiskWriteIOps": plan["disk_write_iops"], "RateIn": plan["net_in_bps"],
        "RateOut": plan["net_out_bps"], "LogRate": plan["log_bytes_per_s"], "LogSize": plan["log_bytes"],
    }  # fmt: skip


def engine_says(platform: Trial, instance: str) -> dict[str, Any]:
    """HostConfig of a container."""
    command = ["docker", "-H", f"unix://{platform.engine_socket}", "inspect", instance]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    found: dict[str, Any] = json.loads(said)[0]["HostConfig"]
    return found


def becomes(read: Callable[[], dict[str, Any]], wanted: dict[str, int]) -> None:
    """Until what is read has all that is wanted; the differences are told when it has not in time."""
    saved = time.monotonic()
    while wrong := {name: found for name, found in read().items() if found != wanted.get(name, found)}:
        assert time.monotonic() - saved < WITHIN_S, f"after {WITHIN_S} s: {wrong}, wanted {wanted}"


def test_a_plan_made_by_the_form_holds_an_app_that_chooses_it_and_every_limit_can_be_changed(
    portal: Portal, platform: Trial, demo_archive: Path
) -> None:
    portal.page.goto(f"{platform.url}/operator/plans")
    portal.page.get_by_role("link", name="New plan").click()
    portal.page.get_by_label("Name", exact=True).fill("Made to measure")
    portal.page.get_by_label("Short name").fill("measured")
    wanted = filled(portal, 2)
    portal.page.get_by_role("button", name="Create the plan").click()
    expect(portal.page.locator("table a", has_text="Made to measure")).to_be_visible()
    assert holds(platform, "measured") == wanted

    portal.new_app("admin", "measured", plan="Made to measure")
    portal.page.get_by_role("button", name="Create without an image").click()
    expect(portal.page.get_by_text("Plan Made to measure: 0.3 core")).to_be_visible()
    assert platform.deploy("measured", demo_archive)[0] == 201
    [instance] = [i["id"] for i in platform.call("GET", "/api/v1/apps/measured/instances")[1]]
    becomes(lambda: engine_says(platform, instance), in_the_engine(wanted))
    assert kernel_limits(platform, instance)[:2] == (96 * MIB, 30_000)

    portal.page.goto(f"{platform.url}/operator/plans/measured")
    wanted = filled(portal, 3)
    portal.page.get_by_role("button", name="Save as version 2").click()
    expect(portal.page.locator("#flash")).to_contain_text("saved as version 2")
    becomes(lambda: engine_says(platform, instance), in_the_engine(wanted))
    assert holds(platform, "measured") == wanted
    assert kernel_limits(platform, instance)[:2] == (104 * MIB, 45_000)
    shown = {label: portal.page.get_by_label(label, exact=True).input_value() for label in LIMITS}
    assert shown == {label: limit[3] for label, limit in LIMITS.items()}
