"""Other processes and containers, the network, and descriptors. `GIVEN["target"]` is what the test prepared."""

from __future__ import annotations

import os
import socket
import struct

from trying import GIVEN, attack, call

# --- other processes and namespaces; `target` is what the test prepared ---


@attack
def signal_another() -> None:
    os.kill(GIVEN["target"]["pid"], 0)


@attack
def trace_another() -> None:
    call("ptrace", 0x4206, GIVEN["target"]["pid"], 0, 0)  # PTRACE_SEIZE, which does not stop it


@attack
def read_anothers_memory() -> None:
    os.close(os.open(f"/proc/{GIVEN['target']['pid']}/mem", os.O_RDONLY))


@attack
def anothers_root() -> None:
    os.listdir(f"/proc/{GIVEN['target']['pid']}/root/")


@attack
def abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + GIVEN["target"]["abstract"])


@attack
def shared_memory() -> None:
    call("shmget", GIVEN["target"]["shm"], 1, 0o600)


# --- the network ---


def _netlink(kind: int, flags: int, body: bytes) -> None:
    """One request of rtnetlink(7); raises what it answers."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.bind((0, 0))
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, flags | 5, 1, 0) + body)
        answer = sock.recv(4096)
    code = struct.unpack_from("=i", answer, 16)[0]
    if code:
        raise OSError(-code, "netlink")


def _lo() -> int:
    return socket.if_nametoindex("lo")


@attack
def add_address() -> None:
    address = struct.pack("=HH4B", 8, 2, 127, 9, 9, 9)
    _netlink(20, 0x600, struct.pack("=BBBBI", 2, 32, 0, 0, _lo()) + address)


@attack
def take_link_down() -> None:
    _netlink(16, 0, struct.pack("=BxHiII", 0, 0, _lo(), 0, 1))


@attack
def add_route() -> None:
    body = struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, 3, 253, 1, 0)
    _netlink(24, 0x600, body + struct.pack("=HH4B", 8, 1, 127, 8, 8, 8) + struct.pack("=HHI", 8, 4, _lo()))


@attack
def change_shaping() -> None:
    kind = struct.pack("=HH8s", 4 + 6, 1, b"pfifo\0")
    _netlink(36, 0x500, struct.pack("=BxxxiIII", 0, _lo(), 0x10000, 0xFFFFFFFF, 0) + kind)


@attack
def raw_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@attack
def packet_socket() -> None:
    socket.socket(17, socket.SOCK_RAW, socket.htons(3)).close()  # AF_PACKET


# --- descriptors from one container to another ---


@attack
def hand_out_a_folder() -> None:
    """Over a socket in a shared folder, then wait to be killed."""
    os.makedirs("/tmp/own")
    os.chmod("/tmp/own", 0o755)
    os.close(os.open("/tmp/own/secret", os.O_WRONLY | os.O_CREAT, 0o600))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("/shared/new")
        os.chmod("/shared/new", 0o666)
        listening.listen(8)
        os.rename("/shared/new", "/shared/door")
        while True:
            taker, _ = listening.accept()
            socket.send_fds(taker, [b"x"], [os.open("/tmp/own", os.O_RDONLY)])


@attack
def open_by_a_folder_that_came() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/shared/door")
        _, fds, _, _ = socket.recv_fds(client, 8, 1)
    os.close(os.open("secret", os.O_RDONLY, dir_fd=fds[0]))


@attack
def give_stdout_away() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/shared/taker")
        socket.send_fds(client, [b"x"], [1])


@attack
def see_a_leak() -> str | None:
    """A descriptor beside the streams, the one that lists them, and this process's pipe."""
    names = [os.readlink(f"/proc/1/fd/{number}") for number in os.listdir("/proc/1/fd") if int(number) > 2]
    return None if any(name.endswith(GIVEN["target"]["leak"]) for name in names) else "empty"
