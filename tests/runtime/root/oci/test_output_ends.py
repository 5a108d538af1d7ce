"""Output pipes that live longer than their container: nobody who holds one can hold up its end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runtime.kernel.process import start_ticks
from runtime.oci import launcher
from runtime.oci.spec import Mount
from runtime.oci.state import EXIT
from tests.runtime.root.oci import unbounded
from tests.runtime.root.oci.conftest import Room, output, until

pytestmark = pytest.mark.root

SOON_S = 5.0
# Perl's syscall() reaches sendmsg(2) and recvmsg(2); structs of 64 bits, SCM_RIGHTS is 1, SOL_SOCKET 1 (x86-64: 46 and 47).
PERL = r"""
use Socket; my ($role, $path) = @ARGV; $| = 1;
our ($iov, $byte, $control) = ("", "x", pack("Q i i i x4", 20, 1, 1, 1));
sub message { $iov = pack("P Q", $byte, 1); return pack("Q L L P Q P Q i x4", 0, 0, 0, $iov, 1, $control, 24, 0); }
socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die "socket $!";
if ($role eq "take") {
  bind($s, sockaddr_un($path)) or die "bind $!"; chmod 0777, $path; listen($s, 1); accept(my $c, $s) or die "accept $!";
  my $header = message();
  syscall(47, fileno($c), $header, 0) == 1 or die "recvmsg $!";
  my $fd = (unpack("Q i i i", $control))[3];
  open(my $out, ">&=", $fd) or die "open $!"; syswrite($out, "from another container\n"); print "holds\n";
  if ($ARGV[2]) { my $line = "y" x 4095 . "\n"; 1 while syswrite($out, $line); }
  sleep 600;
} else {
  until (connect($s, sockaddr_un($path))) { select(undef, undef, undef, 0.05); }
  my $header = message();
  syscall(46, fileno($s), $header, 0) == 1 or die "sendmsg $!";
  my $answer = <STDIN>; print "handed\n"; sleep 600;
}
"""


def perl(room: Room) -> None:
    """Put the distribution's perl with its libraries and the modules it needs into the layer."""
    layer, interpreter = room.store / "l", "/usr/bin/perl"
    if (layer / "usr/bin/perl").exists():
        return

    linked = subprocess.run(["ldd", interpreter], capture_output=True, text=True, check=True).stdout.split()
    loaded = subprocess.run(
        [interpreter, "-MSocket", "-e", "print join ' ', values %INC, @DynaLoader::dl_shared_objects"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for path in (interpreter, *(word for word in linked if word.startswith("/")), *loaded):
        target = layer / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def state_of(pid: int) -> str:
    """The letter of a process's state, "" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize("writes", [False, True], ids=["holds", "writes on"])
async def test_a_pipe_handed_to_another_container_does_not_hold_up_the_exit_record(room: Room, writes: bool) -> None:
    perl(room)
    volume = room.store / "volume"
    volume.mkdir()
    volume.chmod(0o777)
    (volume / "p.pl").write_text(PERL)
    bind = Mount(destination="/v", type="bind", source=str(volume), options=("rbind",))
    more = ["1"] if writes else []
    taker = await room.start(room.bundle("/usr/bin/perl", "/v/p.pl", "take", "/v/s", *more, binds=(bind,)))
    bundle = room.bundle("/usr/bin/perl", "/v/p.pl", "give", "/v/s", binds=(bind,))
    giver = await room.start(bundle)
    await until(lambda: "from another container" in output(bundle))
    os.kill(giver.init_pid, signal.SIGKILL)
    began = time.monotonic()
    record = await asyncio.wait_for(giver.wait(), SOON_S)
    assert (record.code, record.signal) == (137, signal.SIGKILL) and time.monotonic() - began < SOON_S
    giver.close()
    assert start_ticks(taker.init_pid) is not None
    os.kill(taker.init_pid, signal.SIGKILL)
    assert (await taker.wait()).code == 137
    taker.close()


async def test_a_pipe_that_a_process_of_the_hosts_holds_does_not_hold_up_the_exit_record(room: Room) -> None:
    bundle = room.bundle("sh", "-c", "echo one; sleep 600")
    launched = await room.start(bundle)
    await until(lambda: "one" in output(bundle))
    held = os.open(f"/proc/{launched.init_pid}/fd/1", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(held, b"two\n")
        os.kill(launched.init_pid, signal.SIGKILL)
        record = await asyncio.wait_for(launched.wait(), SOON_S)
        assert record.code == 137
        launched.close()
        assert output(bundle) == "one\ntwo"
        with pytest.raises(BrokenPipeError):
            os.write(held, b"three\n")
    finally:
        os.close(held)


async def test_without_a_bounded_end_who_holds_the_pipe_holds_up_the_exit_record(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "BOOT", unbounded.BOOT)
    bundle = room.bundle("sh", "-c", "echo one; sleep 600")
    launched = await room.start(bundle)
    await until(lambda: "one" in output(bundle))
    held = os.open(f"/proc/{launched.init_pid}/fd/1", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.kill(launched.init_pid, signal.SIGKILL)
        await until(lambda: state_of(launched.init_pid) in ("Z", ""))
        os.write(held, b"two\n")
        await until(lambda: output(bundle) == "one\ntwo")  # it reads on, long after the end
        assert not (bundle / EXIT).exists()
    finally:
        os.close(held)
    assert (await launched.wait()).code == 137
    launched.close()


async def test_a_child_that_leaves_its_session_ends_with_its_container(room: Room) -> None:
    """Its process namespace takes it along, and with it the pipe it held."""
    bundle = room.bundle("sh", "-c", "setsid sh -c 'while :; do echo on; sleep 0.05; done' & sleep 0.2; exit 3")
    launched = await room.start(bundle)
    assert (await asyncio.wait_for(launched.wait(), SOON_S)).code == 3
    launched.close()
    assert "on" in output(bundle)
