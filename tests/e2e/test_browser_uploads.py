"""How an archive gets from a person's machine to the portal: dropped, resumed, refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from scripts.trial import Trial
from tests.e2e.browser import Portal
from tests.e2e.conftest import build_demo

pytestmark = pytest.mark.e2e

PROGRESS = "[x-text=progress]"
MOVING = re.compile(r"([\d.]+) (kB|MB) of ([\d.]+ MB) · ([\d.]+) (kB|MB)/s · ([\d.]+) (ms|s|min) left")


def test_a_dropped_archive_shows_bytes_rate_and_time_left_until_it_is_there(portal: Portal, tmp_path: Path) -> None:
    demo_archive = build_demo(tmp_path / "dropped.tar", "--size-mb", "3", "--seed", "77")  # nobody has sent this layer
    portal.watch(PROGRESS)
    portal.new_app("admin", "dropped")
    portal.slow_down(demo_archive.stat().st_size // 3)
    portal.drag(".drop", demo_archive, drop=False)
    expect(portal.page.locator(".drop.over")).to_be_visible()
    portal.drag(".drop", demo_archive)
    expect(portal.page.locator("header h2", has_text=demo_archive.name)).to_be_visible()
    assert portal.image_says()["Image"].startswith("hello")
    shown = portal.seen(PROGRESS)
    moving = [found for text in shown if (found := MOVING.fullmatch(text))]
    assert len(moving) >= 3, shown
    sent = [float(found[1]) * (1 if found[2] == "kB" else 1024) for found in moving]
    assert sent == sorted(sent) and sent[0] < sent[-1], shown
    assert re.fullmatch(r"[\d.]+ MB uploaded(, [\d.]+ MB were here already)?", shown[-1]), shown


def test_a_file_dropped_beside_its_place_leaves_the_page_as_it_is(portal: Portal, demo_archive: Path) -> None:
    portal.new_app("admin", "beside")
    # What no listener prevents, the browser does: it opens the file in the page's stead.
    portal.page.evaluate("addEventListener('dragover', (event) => { window.kept = event.defaultPrevented; })")
    portal.drag("h1", demo_archive)
    portal.page.wait_for_function("window.kept !== undefined")
    assert portal.page.evaluate("window.kept")
    expect(portal.page.locator(".drop")).to_be_visible()
    expect(portal.page.get_by_label("Name", exact=True)).to_have_value("beside")


def test_several_files_dropped_at_once_are_refused_and_the_next_one_alone_is_taken(
    portal: Portal, platform: Trial, demo_archive: Path, crashing_archive: Path
) -> None:
    sent: list[str] = []
    portal.page.on("request", lambda r: sent.append(f"{r.method} {r.url}") if r.method != "GET" else None)
    portal.new_app("admin", "several")
    portal.drag(".drop", demo_archive, crashing_archive)
    expect(portal.page.get_by_role("alert").filter(has_text="dropped")).to_have_text(
        "2 files were dropped, and an image is one archive: drop that one alone."
    )
    expect(portal.page.locator(".drop")).to_be_visible()
    assert sent == [] and platform.call("GET", "/api/v1/apps/several")[0] == 404
    portal.drag(".drop", demo_archive)
    assert portal.image_says()["Image"].startswith("hello")
    expect(portal.page.get_by_text("files were dropped")).to_be_hidden()


def test_an_upload_goes_on_after_a_reload_where_it_stopped(portal: Portal, tmp_path: Path) -> None:
    archive = build_demo(tmp_path / "large.tar", "--size-mb", "48")
    portal.new_app("admin", "resumed")
    portal.slow_down(10 << 20)
    portal.choose_image(archive)
    expect(portal.page.locator("[x-text=progress]")).to_contain_text("MB/s", timeout=15_000)
    portal.page.get_by_role("button", name="Pause").click()
    expect(portal.page.locator("[x-text=progress]")).to_contain_text("paused")
    portal.page.reload()
    expect(portal.page.get_by_text("An upload is waiting")).to_be_visible()

    offsets: list[str] = []
    portal.page.on("request", lambda r: offsets.append(r.headers["upload-offset"]) if r.method == "PATCH" else None)
    portal.slow_down(-1)
    portal.choose_image(archive)
    assert portal.image_says()["Image"].startswith("hello")
    assert int(offsets[0]) > 0


def test_a_file_that_is_no_image_is_refused_in_words(portal: Portal, tmp_path: Path) -> None:
    nonsense = tmp_path / "notes.tar"
    nonsense.write_bytes(b"these are notes, not an image\n" * 400)
    portal.new_app("admin", "nonsense")
    portal.choose_image(nonsense)
    expect(portal.page.locator(".note.bad")).to_be_visible(timeout=15_000)
    assert len(portal.page.locator(".note.bad").inner_text()) > 20


def test_the_second_upload_sends_the_changed_layer_alone(portal: Portal, tmp_path: Path) -> None:
    first = build_demo(tmp_path / "first.tar", "--size-mb", "60", "--seed", "5", "--top-mb", "5", "--top-seed", "11")
    second = build_demo(tmp_path / "second.tar", "--size-mb", "60", "--seed", "5", "--top-mb", "5", "--top-seed", "12")
    sent: list[int] = []
    portal.page.on(
        "request", lambda r: sent.append(int(r.headers.get("upload-length", 0))) if r.method == "POST" else None
    )
    portal.new_app("admin", "layered")
    portal.choose_image(first)
    before = portal.image_says()
    assert sum(sent) > 60 << 20
    sent.clear()
    portal.open_tab("layered", "deploy")
    portal.choose_image(second)
    after = portal.image_says()
    assert 5 << 20 < sum(sent) < 6_000_000
    expect(portal.page.locator(PROGRESS)).to_have_text(re.compile(r"5 MB uploaded, 6\d MB were here already"))
    assert before["Image"] != after["Image"] or before != after
    assert portal.complaints == []
