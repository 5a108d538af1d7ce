"""Photographs every page of a running portal: `python scripts/screenshots.py URL USER PASSWORD FOLDER [--only WORD]`.

Signs in as an operator, walks the pages at 1440 and 390 px, light and dark, and writes one PNG each. Needs Chromium
(`--chromium PATH`, default /usr/bin/chromium).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
WIDTHS = {1440: 900, 390: 844}
SETTLE_MS = 120
LIVE_MS = 900  # charts and logs draw what their websockets bring


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: a name, an address, and whether it is taken signed out."""

    name: str
    path: str
    signed_out: bool = False
    click: str = ""


def shots(page: Page) -> Iterator[Shot]:
    """The pages of this platform: the fixed ones, then those of the first team and of its apps."""
    yield Shot("sign-in", "/accounts/login/", signed_out=True)
    yield Shot("password-lost", "/accounts/password/reset/", signed_out=True)
    yield Shot("password-dead-link", "/accounts/password/reset/MQ/none/", signed_out=True)
    fixed = {
        "account": "/account/", "tokens": "/account/tokens", "password": "/accounts/password/change/", "operator": "/operator/",
        "teams": "/operator/teams", "users": "/operator/users", "plans": "/operator/plans", "plan-new": "/operator/plans/new",
        "hosts": "/operator/hosts", "audit": "/operator/audit", "storage": "/operator/storage", "missing": "/no/such/page", "missing-app": "/apps/no-such-app/",
    }  # fmt: skip
    yield from (Shot(name, path) for name, path in fixed.items())
    yield from (
        Shot(f"plan-{slug}", f"/operator/plans/{slug}")
        for slug in _last_parts(page, "/operator/plans", "/operator/plans/")[:1]
    )
    teams = _last_parts(page, "/operator/teams", "/operator/teams/")
    yield from (Shot(f"quota-{slug}", f"/operator/teams/{slug}") for slug in teams[:1])
    for slug in teams[:2]:
        yield Shot(f"apps-{slug}", f"/teams/{slug}/")
        yield Shot(f"members-{slug}", f"/teams/{slug}/members")
        yield Shot(f"images-{slug}", f"/teams/{slug}/images")
        yield Shot(f"new-{slug}", f"/teams/{slug}/new")
        yield Shot(f"volumes-{slug}", f"/teams/{slug}/volumes")
        for volume in _last_parts(page, f"/teams/{slug}/volumes", f"/teams/{slug}/volumes/")[:2]:
            yield Shot(f"volume-{volume}-{slug}", f"/teams/{slug}/volumes/{volume}")
            yield Shot(
                f"volume-{volume}-dialog-{slug}", f"/teams/{slug}/volumes/{volume}", click="main button[data-dialog]"
            )
    for slug in teams[:1]:
        for app in _last_parts(page, f"/teams/{slug}/", "/apps/"):
            yield Shot(f"{app}-overview", f"/apps/{app}/")
    for app in _last_parts(page, f"/teams/{teams[0]}/", "/apps/")[:2] if teams else []:
        for tab in (
            "deploy",
            "deployments",
            "releases",
            "logs",
            "metrics",
            "instances",
            "environment",
            "volumes",
            "settings",
        ):
            yield Shot(f"{app}-{tab}", f"/apps/{app}/{tab}")
        yield Shot(f"{app}-deployment", f"/apps/{app}/deployments/3")
        yield Shot(f"{app}-rollback", f"/apps/{app}/releases", click="button:has-text('Roll back')")
        yield Shot(f"{app}-delete", f"/apps/{app}/settings", click="button[data-dialog='#delete']")


def _last_parts(page: Page, path: str, prefix: str) -> list[str]:
    """The names behind links of a page that lead to `prefix<name>`."""
    page.goto(page.url.split("/", 3)[0] + "//" + page.url.split("/")[2] + path)
    hrefs: list[str] = page.eval_on_selector_all("main a[href]", "all => all.map(a => a.getAttribute('href'))")
    names = [href.removeprefix(prefix).strip("/") for href in hrefs if href.startswith(prefix)]
    return list(dict.fromkeys(name for name in names if name and "/" not in name and name != "new"))


def sign_in(page: Page, url: str, user: str, password: str) -> None:
    """Through the form, as people do."""
    page.goto(f"{url}/accounts/login/")
    page.fill("#id_login", user)
    page.fill("#id_password", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "/accounts/login" not in address)


class Camera:
    """One look (width and scheme), signed in or out; remembers what the browser complained about."""

    def __init__(self, browser: Browser, width: int, scheme: str, state: Path | None) -> None:
        self.look = f"{width}-{scheme}"
        self.width = width
        self.complaints: list[str] = []
        self.name = ""
        size: ViewportSize = {"width": width, "height": WIDTHS[width]}
        context = browser.new_context(
            viewport=size, color_scheme="dark" if scheme == "dark" else "light", storage_state=state
        )
        self.page = context.new_page()
        self.page.on(
            "console", lambda message: self.complain(message.text) if message.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.complain(str(error)))

    def complain(self, text: str) -> None:
        """Note it, unless it is the answer that the page is about."""
        if not (self.name.startswith("missing") and "404" in text):
            self.complaints.append(f"{self.name}: {text}")

    def take(self, url: str, shot: Shot, folder: Path) -> None:
        """Open the page, wait until it has drawn, photograph it."""
        self.name = shot.name
        self.page.goto(url + shot.path)
        if shot.click:
            self.page.locator(shot.click).first.click()
        live = self.page.locator("[data-log], [data-metrics]").count() or shot.click
        self.page.wait_for_timeout(LIVE_MS if live else SETTLE_MS)
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if wide > 0:
            self.complain(f"{wide} px wider than {self.width}")
        self.page.screenshot(path=folder / f"{shot.name}-{self.look}.png", full_page=not shot.click)


def main() -> int:
    """Take all; exit code 1 when the browser complained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("url", "user", "password"):
        parser.add_argument(name)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="shots whose name holds this word")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    state = options.folder / "state.json"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=ARGUMENTS)
        page = browser.new_page()
        sign_in(page, options.url, options.user, options.password)
        page.context.storage_state(path=state)
        wanted = [shot for shot in shots(page) if options.only in shot.name]
        looks = [(width, scheme) for width in WIDTHS for scheme in ("light", "dark")]
        inside = [Camera(browser, *look, state) for look in looks]
        outside = [Camera(browser, *look, None) for look in looks]
        for shot in wanted:
            for camera in outside if shot.signed_out else inside:
                camera.take(options.url, shot, options.folder)
        complaints = [line for camera in inside + outside for line in camera.complaints]
        browser.close()
    state.unlink()
    print("\n".join(dict.fromkeys(complaints)) or f"{4 * len(wanted)} pictures in {options.folder}, no complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
