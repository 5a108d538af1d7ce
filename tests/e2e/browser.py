"""The portal's pages as a person uses them, through a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
Scheme = Literal["light", "dark"]
LIVE_MS = 60_000
# Every text that elements of a selector ever showed in this tab, page after page: what came and went is not missed.
WATCH = """
addEventListener("DOMContentLoaded", () => {
  const selector = SELECTOR, key = `seen ${selector}`;
  const look = () => {
    const seen = JSON.parse(sessionStorage.getItem(key) ?? "[]");
    for (const { innerText: text } of document.querySelectorAll(selector)) if (text && !seen.includes(text)) seen.push(text);
    sessionStorage.setItem(key, JSON.stringify(seen));
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
  look();
});
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The distribution's Chromium, headless."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise RuntimeError("There is no Chromium on this machine; install the package chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Portal:
    """A browser at the portal. `complaints` has what its console said was wrong, refused content included."""

    def __init__(
        self, browser: Browser, url: str, *, width: int = 1440, height: int = 900, scheme: Scheme = "light"
    ) -> None:
        self.url = url
        size: ViewportSize = {"width": width, "height": height}
        self.context = browser.new_context(viewport=size, color_scheme=scheme)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    def sign_in(self, user: str, password: str) -> None:
        """Through the form."""
        self.page.goto(f"{self.url}/accounts/login/")
        self.page.get_by_label("Username or e-mail").fill(user)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()

    def new_app(self, team: str, name: str, plan: str = "Small") -> None:
        """Open the page New app and fill in name and plan; an image makes it real."""
        self.page.goto(f"{self.url}/teams/{team}/new")
        self.page.get_by_label("Name", exact=True).fill(name)
        self.page.locator(".choice", has_text=plan).click()

    def choose_image(self, archive: Path) -> None:
        """Hand the browser an archive, as the file picker does."""
        self.page.set_input_files("input[type=file]", archive)

    def drag(self, over: str, *files: Path, drop: bool = True) -> None:
        """Drag files from outside the browser over an element, as a hand does, and let go of them there."""
        target = self.page.locator(over)
        target.scroll_into_view_if_needed()
        box = target.bounding_box()
        assert box is not None, f"{over} is not to be seen"
        link = self.context.new_cdp_session(self.page)
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", *(["drop"] if drop else [])):
            link.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})

    def slow_down(self, bytes_per_s: int) -> None:
        """Hold what the page sends to a rate; -1 lifts it."""
        link = self.context.new_cdp_session(self.page)
        link.send("Network.enable")
        rates = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_s}
        link.send("Network.emulateNetworkConditions", rates)

    def watch(self, selector: str) -> None:
        """From the next page on, keep every text these elements show."""
        self.page.add_init_script(WATCH.replace("SELECTOR", json.dumps(selector)))

    def seen(self, selector: str) -> list[str]:
        """The texts that were shown, in the order they first were."""
        texts: list[str] = self.page.evaluate(
            "key => JSON.parse(sessionStorage.getItem(key) ?? '[]')", f"seen {selector}"
        )
        return texts

    def image_says(self) -> dict[str, str]:
        """The card "What the image says", once the upload is over."""
        card = self.page.locator("#image dl")
        expect(card).to_be_visible(timeout=LIVE_MS)
        keys, values = card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts()
        return dict(zip(keys, values, strict=True))

    def deploy(self) -> None:
        """The button; the app's page follows."""
        self.page.locator("#image").get_by_role("button", name="Deploy").click()
        expect(self.page.locator("#deployment .steps")).to_be_visible()

    def wait_for(self, words: str | re.Pattern[str]) -> None:
        """Until the deployment's headline says so, by its websocket alone."""
        headline = self.page.locator("#deployment h2")
        over = re.compile(r"is live|failed|cancelled")
        expect(headline).to_have_text(
            words if isinstance(words, re.Pattern) else re.compile(f"{words}|{over.pattern}"), timeout=LIVE_MS
        )
        expect(headline, self.page.locator("#deployment").inner_text()).to_have_text(words)

    def open_tab(self, app: str, tab: str = "") -> None:
        """One of an app's pages."""
        self.page.goto(f"{self.url}/apps/{app}/{tab}")

    def log_lines(self) -> str:
        """What the live log shows."""
        return self.page.locator(".log").inner_text()

    def close(self) -> None:
        """End the browser's context."""
        self.context.close()
