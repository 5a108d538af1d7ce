"""A desired instance in Docker's words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.worker.test_difference import DIGEST, instance
from worker.container import Container, create_body, team_network, update_body
from worker.limits import cpu_shares, human_bytes, resources
from worker.protocol import ImageRef, Limits

FULL = Limits(
    cpu_millicores=1500, cpu_weight=200, memory_bytes=512 << 20, swap_bytes=64 << 20, pids=128, disk_bytes=2 << 30,
    disk_read_bps=50_000_000, disk_write_bps=20_000_000, disk_read_iops=1000, disk_write_iops=500,
    net_in_bps=80_000_000, net_out_bps=40_000_000, log_bytes_per_s=1 << 20, log_bytes=50 << 20,
)  # fmt: skip


def test_every_limit_of_a_plan_has_its_name_in_the_engine() -> None:
    assert resources(FULL) == {
        "NanoCpus": 1_500_000_000, "CpuShares": 2048, "Memory": 512 << 20, "MemorySwap": 576 << 20, "PidsLimit": 128,
        "DiskReadBps": 50_000_000, "DiskWriteBps": 20_000_000, "DiskReadIOps": 1000, "DiskWriteIOps": 500,
        "DiskSize": 2 << 30, "RateIn": 80_000_000, "RateOut": 40_000_000, "LogRate": 1 << 20, "LogSize": 50 << 20,
    }  # fmt: skip


def test_without_a_memory_limit_there_is_none_on_swap() -> None:
    assert resources(Limits(swap_bytes=1 << 30))["MemorySwap"] == 0


@pytest.mark.parametrize(("weight", "shares"), [(0, 0), (1, 10), (100, 1024), (10_000, 102_400)])
def test_weights_become_shares(weight: int, shares: int) -> None:
    assert cpu_shares(weight) == shares


def test_the_create_request_holds_the_plan_the_place_and_the_names() -> None:
    body = create_body(replace(instance(), limits=FULL, environment={"A": "1"}, port=3000))
    host = body["HostConfig"]
    assert body["Image"] == f"r/acme/hello@{DIGEST}"
    assert body["StopTimeout"] == instance().grace_s
    assert host["CgroupParent"] == "acme/hello"
    assert host["RestartPolicy"] == {"Name": "no"}
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["StorageOpt"] == {"size": str(2 << 30)}
    assert host["LogConfig"]["Config"] == {"max-size": str(50 << 20), "rate": str(1 << 20)}
    endpoint = body["NetworkingConfig"]["EndpointsConfig"][team_network("acme")]
    assert "hello.internal" in endpoint["Aliases"]
    assert endpoint["DriverOpts"] == {"moorage.rate.in": "80000000", "moorage.rate.out": "40000000"}
    assert "Entrypoint" not in body
    assert "Cmd" not in body


def test_an_app_cannot_replace_what_the_platform_says_in_the_environment() -> None:
    env = dict(
        e.split("=", 1) for e in create_body(instance(environment={"PORT": "1", "MOORAGE_APP": "x", "K": "a=b"}))["Env"]
    )
    assert env == {
        "PORT": "8080",
        "MOORAGE_APP": "hello",
        "MOORAGE_RELEASE": "1",
        "MOORAGE_INSTANCE": "web-1",
        "K": "a=b",
    }


def test_no_new_privileges_may_be_switched_off_for_an_app() -> None:
    assert create_body(instance(no_new_privs=False))["HostConfig"]["SecurityOpt"] == []


def test_a_command_and_an_empty_entrypoint_are_passed_on() -> None:
    body = create_body(instance(entrypoint=(), command=("a", "b")))
    assert (body["Entrypoint"], body["Cmd"]) == ([], ["a", "b"])


def test_a_live_app_comes_back_after_a_crash_but_not_after_it_was_stopped() -> None:
    assert update_body(instance(restart=True))["RestartPolicy"] == {"Name": "unless-stopped"}
    assert update_body(instance())["RestartPolicy"] == {"Name": "no"}


def test_secrets_stay_out_of_the_labels() -> None:
    body = create_body(
        replace(
            instance(environment={"PASSWORD": "hunter2"}),
            image=ImageRef(repository="r", digest=DIGEST, pull_token="tok"),
        )
    )
    assert "hunter2" not in str(body["Labels"])
    assert "tok" not in str(body)


def test_a_row_of_the_engines_list_is_read() -> None:
    labels = {"moorage.app": "hello", "moorage.team": "acme", "moorage.release": "3", "moorage.restart_generation": "2"}
    row = {
        "Id": "abc", "Names": ["/web-1"], "State": "running", "Labels": labels,
        "NetworkSettings": {"Networks": {"team-acme": {"IPAddress": "10.0.0.5"}}},
    }  # fmt: skip
    assert Container.from_listing(row) == Container(
        id="abc",
        name="web-1",
        state="running",
        address="10.0.0.5",
        app="hello",
        team="acme",
        release=3,
        restart_generation=2,
    )


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (512 << 20, "512 MB"), (1536 << 20, "1.5 GB"), (2 << 40, "2 TB")]
)
def test_sizes_as_people_read_them(count: int, text: str) -> None:
    assert human_bytes(count) == text
