"""Light and dark, on a desk and on a phone: pages have the ground the person's system asks for, and every text can be read on it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from scripts.trial import Trial
from tests.e2e.browser import Portal, Scheme

pytestmark = pytest.mark.e2e

APP = "looked-at"
READ = (Path(__file__).parent / "looks.js").read_text()
HEIGHTS = {1440: 900, 390: 844}
PAGES = (
    "/teams/admin/", "/teams/admin/new", f"/apps/{APP}/", f"/apps/{APP}/deployments", f"/apps/{APP}/releases", f"/apps/{APP}/logs",
    f"/apps/{APP}/metrics", f"/apps/{APP}/settings", "/operator/", "/operator/plans", "/operator/plans/nano", "/operator/plans/new",
    "/operator/audit", "/operator/storage", "/teams/admin/images", "/account/", "/account/tokens", "/no/such/page",
)  # fmt: skip
BRIGHTNESS = """
async (picture) => {
  const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${picture}`)).blob());
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  let sum = 0;
  for (let n = 0; n < data.length; n += 4) sum += 0.2126 * data[n] + 0.7152 * data[n + 1] + 0.0722 * data[n + 2];
  return sum / (data.length / 4) / 255;
}
"""


@pytest.fixture(scope="module", autouse=True)
def _app(platform_running: Trial, demo_archive: Path, crashing_archive: Path) -> None:
    """An app that serves one release while the next one failed: its pages have much to say."""
    assert platform_running.call("POST", "/api/v1/apps", {"app": APP, "plan": "nano", "team": "admin"})[0] == 201
    assert platform_running.deploy(APP, demo_archive)[0] == 201
    assert platform_running.deploy(APP, crashing_archive)[0] == 422


@contextmanager
def looking(browser: Browser, platform: Trial, width: int, scheme: Scheme) -> Iterator[Portal]:
    """A browser of that width on a system of that scheme."""
    portal = Portal(browser, platform.url, width=width, height=HEIGHTS[width], scheme=scheme)
    portal.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    yield portal
    portal.close()


def brightness(page: Page) -> float:
    """Mean of what the person sees, from 0 (black) to 1 (white)."""
    blank = page.context.new_page()
    picture = base64.b64encode(page.screenshot()).decode()
    found: float = blank.evaluate(BRIGHTNESS, picture)
    blank.close()
    return found


def faults(page: Page, scheme: Scheme) -> Iterator[str]:
    """What is wrong with the looks of the open page."""
    page.evaluate("document.fonts.ready")
    found = page.evaluate(READ)
    mean, dark = brightness(page), scheme == "dark"
    if found["wider"] > 0:
        yield f"{found['wider']} px wider than the screen"
    if (found["ground"] > 0.03, mean > 0.25) != (not dark, not dark) or (not dark and mean < 0.8):
        yield f"the ground is {found['ground']:.3f}, the picture {mean:.2f}"
    assert len(found["texts"]) >= 5, found
    for text in found["texts"]:
        if text["ratio"] < text["needed"]:
            yield f"{text['ratio']:.2f} of {text['needed']}: {text['text']!r} in {text['place']}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", HEIGHTS)
def test_every_page_has_the_ground_of_the_system_and_texts_that_can_be_read_on_it(
    browser: Browser, platform: Trial, width: int, scheme: Scheme
) -> None:
    wrong: dict[str, list[str]] = {}
    with looking(browser, platform, width, scheme) as portal:
        for path in ("/accounts/login/", "/accounts/password/reset/"):
            portal.page.goto(platform.url + path)
            wrong[path] = list(faults(portal.page, scheme))
        portal.sign_in("admin", "not the password")
        wrong["refused"] = list(faults(portal.page, scheme))
        portal.sign_in("admin", platform.password)
        expect(portal.page).to_have_url(re.compile(r"/teams/admin/$"))
        for path in PAGES:
            portal.page.goto(platform.url + path)
            wrong[path] = list(faults(portal.page, scheme))
    assert not any(wrong.values()), "\n".join(f"{path}: {fault}" for path, found in wrong.items() for fault in found)
