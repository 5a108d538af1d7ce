"""What the pages are made of: vendored files as their manifest says, and nothing that leads nowhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from scripts import vendor

ROOT = Path(__file__).resolve().parents[3]
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
OWN_SCRIPTS = sorted((ROOT / "static" / "js").glob("*.js"))


def test_vendored_files_are_as_their_manifest_says() -> None:
    assert vendor.differences() == []


def test_a_changed_vendored_file_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(vendor.VENDOR, tmp_path / "vendor")
    monkeypatch.setattr(vendor, "VENDOR", tmp_path / "vendor")
    monkeypatch.setattr(vendor, "MANIFEST", tmp_path / "vendor" / "manifest.json")
    (tmp_path / "vendor" / "tus" / "tus.min.js").write_text("changed")
    (tmp_path / "vendor" / "stray.js").write_text("new")
    (tmp_path / "vendor" / "htmx" / "LICENSE").unlink()
    assert len(vendor.differences()) == 3


def test_every_icon_that_a_template_asks_for_is_in_the_sprite() -> None:
    sprite = set(re.findall(r'<symbol id="([\w-]+)"', (ROOT / "static/img/icons.svg").read_text()))
    asked = {name for path in TEMPLATES for name in re.findall(r'{% icon "([\w-]+)"', path.read_text())}
    assert asked <= sprite


def test_every_static_file_that_a_template_asks_for_is_there() -> None:
    asked = {name for path in TEMPLATES for name in re.findall(r"{% static '([^']+)' %}", path.read_text())}
    assert asked and [name for name in asked if not (ROOT / "static" / name).is_file()] == []


def test_every_module_that_a_script_imports_is_there() -> None:
    asked = [(path, name) for path in OWN_SCRIPTS for name in re.findall(r'from "([^"]+)"', path.read_text())]
    assert asked and [name for path, name in asked if not (path.parent / name).is_file()] == []


def test_every_part_that_a_template_includes_is_there() -> None:
    found = [
        (path, name) for path in TEMPLATES for name in re.findall(r'{% (?:include|extends) "([^"]+)"', path.read_text())
    ]
    assert [
        name for _, name in found if not (ROOT / "templates" / name).is_file() and not name.startswith("allauth/")
    ] == []


def test_no_template_holds_a_script_or_a_style_that_the_policy_would_refuse() -> None:
    refused = re.compile(r"<script(?![^>]*\bsrc=)|<style| style=| on[a-z]+=\"|javascript:|\bhx-on")
    assert [(path.name, match.group()) for path in TEMPLATES if (match := refused.search(path.read_text()))] == []


def test_the_figures_of_scripts_and_server_are_the_same() -> None:
    """Both say sizes, rates and moments; a word changed on one side would make a page flicker."""
    script = (ROOT / "static/js/figures.js").read_text()
    server = (ROOT / "portal/figures.py").read_text()
    for words in (
        '"B", "kB", "MB", "GB", "TB", "PB"',
        '"bit/s", "kbit/s", "Mbit/s", "Gbit/s"',
        '"yesterday"',
        "in a moment",
    ):
        assert words in script and words in server
