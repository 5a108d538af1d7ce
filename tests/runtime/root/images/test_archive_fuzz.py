"""The first rounds of the fuzz target `tests.fuzz.archives`, always the same ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fuzz.archives import SEED, archives

pytestmark = pytest.mark.root

LAYERS = f"from tests.fuzz.archives import layers_in_child; print(*layers_in_child(300, {SEED}, 100))"


def test_bent_archives_are_read_or_refused() -> None:
    tried, good = archives(300, SEED, 500)
    assert tried == 500 and 0 < good < tried


def test_bent_layers_are_unpacked_or_refused() -> None:
    """From a small process: the child's memory is bounded, with what it has from its parent."""
    done = subprocess.run([sys.executable, "-c", LAYERS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tried, good = map(int, done.stdout.split())
    assert tried == 100 and 0 < good < tried
