"""`POST /containers/create` as strangers send it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.engine.errors import EngineFault, Forbidden, Invalid, Unsupported
from runtime.engine.request import check_group, check_name, parse_create
from runtime.engine.resources import Resources, parse_resources


def host(**fields: Any) -> dict[str, Any]:
    return {"Image": "busybox", "HostConfig": fields}


def test_a_plain_request_is_taken() -> None:
    body = host(Memory=64 << 20, NanoCpus=500_000_000, PidsLimit=20, CgroupParent="acme/web", StorageOpt={"size": "2g"})
    body["Cmd"] = ["sh", "-c", "true"]
    body["NetworkingConfig"] = {
        "EndpointsConfig": {"acme": {"DriverOpts": {"moorage.rate.in": "8000000", "moorage.rate.out": "16000000"}}}
    }
    body["HostConfig"]["LogConfig"] = {"Type": "json-file", "Config": {"max-size": "10m", "rate": "64k"}}
    parsed = parse_create(body, trusted=False)
    r = parsed.host.resources
    assert (r.memory, r.millicores, r.pids, r.disk_size) == (64 << 20, 500, 20, 2 << 30)
    assert (r.rate_in, r.rate_out, r.log_size, r.log_rate) == (8_000_000, 16_000_000, 10 << 20, 65_536)
    assert parsed.host.cgroup_parent == "acme/web"
    assert parsed.config.cmd == ("sh", "-c", "true")


def test_a_console_has_a_height_and_a_width_of_16_bits() -> None:
    assert parse_create(host(ConsoleSize=[24, 80]), trusted=False).host.console_size == (24, 80)
    assert parse_create(host(), trusted=False).host.console_size == (0, 0)
    for wrong in ([1], [1, 2, 3], "24x80", [24, 65_536], [-1, 80], ["24", 80], [True, 80]):
        with pytest.raises(Invalid, match=r"HostConfig\.ConsoleSize"):
            parse_create(host(ConsoleSize=wrong), trusted=False)


@pytest.mark.parametrize(
    "fields",
    [
        {"Privileged": True},
        {"PidMode": "host"},
        {"PidMode": "container:abc"},
        {"IpcMode": "host"},
        {"UTSMode": "host"},
        {"UsernsMode": "host"},
        {"CgroupnsMode": "host"},
        {"NetworkMode": "host"},
        {"NetworkMode": "container:abc"},
        {"CapAdd": ["SYS_ADMIN"]},
        {"Devices": [{"PathOnHost": "/dev/sda"}]},
        {"DeviceRequests": [{"Count": -1}]},
        {"DeviceCgroupRules": ["c 1:1 rwm"]},
        {"GroupAdd": ["0"]},
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"SecurityOpt": ["apparmor=unconfined"]},
        {"OomScoreAdj": -500},
        {"Sysctls": {"kernel.core_pattern": "|/bin/sh"}},
    ],
)
def test_what_reaches_past_the_container_is_refused_unless_trusted(fields: dict[str, Any]) -> None:
    with pytest.raises(Forbidden) as refused:
        parse_create(host(**fields), trusted=False)
    assert "--trusted" in str(refused.value)
    try:
        parse_create(host(**fields), trusted=True)
    except Unsupported as absent:
        assert "not offered yet" in str(absent)


def test_a_trusted_engine_grants_what_it_can() -> None:
    fields = {
        "Privileged": True,
        "NetworkMode": "host",
        "CapAdd": ["NET_ADMIN"],
        "SecurityOpt": ["seccomp=unconfined"],
        "OomScoreAdj": -5,
    }
    parsed = parse_create(host(**fields), trusted=True).host
    assert (parsed.privileged, parsed.unconfined, parsed.cap_add, parsed.oom_score_adj) == (
        True,
        True,
        ("NET_ADMIN",),
        -5,
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "must be an object"),
        ({}, "No image"),
        ({"Image": 3}, "must be a string"),
        ({"Image": "a\0b"}, "NUL"),
        ({"Image": "x" * 600}, "at most 512"),
        ({"Image": "x", "Env": ["=1"]}, "no name"),
        ({"Image": "x", "Env": "A=1" * 100_000}, "at most"),
        ({"Image": "x", "Env": ["A=1"] * 5000}, "at most 4096"),
        ({"Image": "x", "WorkingDir": "here"}, "absolute"),
        ({"Image": "x", "ExposedPorts": {"99999/tcp": {}}}, "not a port"),
        (host(Memory=1 << 20), "Minimum memory"),
        (host(Memory="1g"), "must be an integer"),
        (host(Memory=True), "must be an integer"),
        (host(Memory=64 << 20, MemorySwap=1 << 20), "larger than memory"),
        (host(MemorySwap=1 << 30), "always set the Memory limit"),
        (host(NanoCpus=10**13), "Range of CPUs"),
        (host(NanoCpus=10**9, CpuQuota=100_000), "both set"),
        (host(CpusetCpus="0;rm"), "not a list"),
        (host(CgroupParent="../../system"), "joined by /"),
        (host(CgroupParent="a/../b"), "joined by /"),
        (host(StorageOpt={"size": "huge"}), "not a size"),
        (host(LogConfig={"Type": "syslog"}), "log driver"),
        (host(RestartPolicy={"Name": "sometimes"}), "invalid restart policy"),
        (host(RestartPolicy={"Name": "always", "MaximumRetryCount": 3}), "cannot be used"),
        (host(RestartPolicy={"Name": "always"}, AutoRemove=True), "Conflicting options"),
        (host(PortBindings={"80/tcp": [{"HostPort": "8000-8010"}]}), "Invalid host port"),
        (host(Binds=["/a"]), "invalid volume specification"),
        (host(CapDrop=["WINGS"]), "no capability"),
        ({"Image": "x", "NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {}}}}, "more than one network"),
        (
            {"Image": "x", "NetworkingConfig": {"EndpointsConfig": {"a": {"DriverOpts": {"moorage.rate.in": "-1"}}}}},
            "bits per second",
        ),
    ],
)
def test_nonsense_is_refused_with_a_sentence(body: object, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_create(body, trusted=False)
    assert words in str(refused.value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", "/a:/b", "-1", "\0"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "80/tcp", "Name"]), inner, max_size=2)
    ),
    max_leaves=4,
)
NAMES = [
    "HostConfig",
    "Env",
    "Cmd",
    "Entrypoint",
    "Labels",
    "ExposedPorts",
    "NetworkingConfig",
    "Volumes",
    "Healthcheck",
    "Tty",
]
HOST_NAMES = [
    "ConsoleSize",
    "Memory",
    "PortBindings",
    "Binds",
    "Mounts",
    "Ulimits",
    "RestartPolicy",
    "StorageOpt",
    "LogConfig",
    "Sysctls",
    "Dns",
    "CapAdd",
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(NAMES), json_values), st.dictionaries(st.sampled_from(HOST_NAMES), json_values))
def test_whatever_json_comes_is_taken_or_refused_but_never_a_crash(top: dict[str, Any], below: dict[str, Any]) -> None:
    body = {"Image": "x", **top}
    body.setdefault("HostConfig", below)
    try:
        parse_create(body, trusted=False)
    except EngineFault as refused:
        assert str(refused)


def test_names_are_dockers() -> None:
    assert check_name("/web-1") == "web-1"
    for bad in ("", "a", "-a", "a b", "a/b", "x" * 200):
        with pytest.raises(Invalid):
            check_name(bad)


def test_a_cgroup_parent_is_a_team_and_an_app() -> None:
    assert check_group("acme/web") == "acme/web"
    for bad in ("/etc", "a//b", "a/b/c/d/e", ".."):
        with pytest.raises(Invalid):
            check_group(bad)


def test_an_update_changes_only_what_it_names() -> None:
    before = Resources(memory=64 << 20, pids=10, rate_in=1000)
    after = parse_resources({"Memory": 128 << 20, "MemorySwap": 256 << 20}, before)
    assert (after.memory, after.pids, after.rate_in) == (128 << 20, 10, 1000)
    assert parse_resources({"PidsLimit": 0}, before).pids == 0


def test_a_quota_and_cpus_name_the_same_limit() -> None:
    before = parse_resources({"NanoCpus": 1_000_000_000})
    after = parse_resources({"CpuQuota": 50_000}, before)
    assert after.millicores == 500
    assert parse_resources({"NanoCpus": 0}, before).millicores == 0
