"""`python -m bench.log_source HOST PORT SECONDS`: sends lines that begin with the time they were sent at, at a steady rate."""

from __future__ import annotations

import socket
import sys
import time

LINES_PER_S = 5_000
TICK_S = 0.002
FILLING = "the usual things that an app says about a request it has answered"


def send(host: str, port: int, seconds: float) -> None:
    """Each tick its lines; a late tick is made up for, so that the rate holds."""
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < seconds:
            due = int(elapsed * LINES_PER_S)
            now = time.time()
            connection.sendall("".join(f"{now:.6f} {n} {FILLING}\n" for n in range(sent, due)).encode())
            sent = due
            time.sleep(TICK_S)
    print(sent)


if __name__ == "__main__":
    send(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
