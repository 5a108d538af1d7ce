"""The test VM's first root file system."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts import vm


def test_the_archive_is_one_that_cpio_unpacks(tmp_path: Path) -> None:
    content = b"seven b"
    entries = [
        vm.cpio_entry("bin", 0o040755),
        vm.cpio_entry("bin/tool", 0o100755, content),
        vm.cpio_entry("TRAILER!!!", 0),
    ]
    subprocess.run(["busybox", "cpio", "-i"], input=b"".join(entries), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "bin/tool").read_bytes() == content
    assert (tmp_path / "bin/tool").stat().st_mode & 0o777 == 0o755


def test_words_of_the_command_stay_words(tmp_path: Path) -> None:
    guest = vm.Guest(("printf", "%s\\n", "two words", "$HOME"), tmp_path, None, 512, 1, 10)
    vm.fill_out_folder(tmp_path, guest)
    said = subprocess.run(["bash", tmp_path / "command"], check=True, capture_output=True, text=True).stdout
    assert said == "two words\n$HOME\n"


@pytest.mark.parametrize("place", ["usr/libexec/virtiofsd", "usr/lib/qemu/virtiofsd"])
def test_virtiofsd_is_found_where_each_distribution_has_it(place: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"there is no /usr/libexec/virtiofsd or .*: run make setup-dev"):
        vm.program("virtiofsd", tmp_path)
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).touch()
    assert vm.program("virtiofsd", tmp_path) == str(tmp_path / place)
