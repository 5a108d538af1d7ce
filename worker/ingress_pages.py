"""The pages the ingress itself answers with: small, self-contained, light and dark, in the look of the portal. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

MARK = (
    '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" aria-hidden="true">'
    '<circle cx="12" cy="5" r="2.4"/><path d="M12 7.4V20M8 11h8M4.5 13c.4 4.2 3.4 7 7.5 7s7.1-2.8 7.5-7"/></svg>'
)

STYLE = """
:root{color-scheme:light dark;--ground:light-dark(oklch(.986 .003 240),oklch(.175 .012 250));--surface:light-dark(#fff,oklch(.21 .013 250));
--line:light-dark(oklch(.923 .006 245),oklch(.29 .014 250));--ink:light-dark(oklch(.24 .02 255),oklch(.95 .006 245));
--ink-2:light-dark(oklch(.46 .018 252),oklch(.74 .014 248));--ink-3:light-dark(oklch(.55 .015 252),oklch(.64 .014 248));
--accent:light-dark(oklch(.52 .125 232),oklch(.76 .115 220));--busy:light-dark(oklch(.53 .115 70),oklch(.82 .13 80));
--failed:light-dark(oklch(.53 .19 25),oklch(.74 .15 22));--rest:light-dark(oklch(.55 .015 252),oklch(.66 .012 248))}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;grid-template-rows:1fr auto;background:var(--ground);color:var(--ink);
font:400 15px/1.55 "Inter Variable",Inter,system-ui,sans-serif;-webkit-font-smoothing:antialiased}
main{align-self:center;justify-self:center;width:min(460px,100vw);padding:32px 24px}
h1{margin:14px 0 8px;font-size:24px;line-height:1.25;font-weight:620;letter-spacing:-.02em;text-wrap:balance}
p{margin:0 0 8px;color:var(--ink-2);text-wrap:pretty}
.status{display:inline-flex;align-items:center;gap:8px;font-weight:540;font-size:13px}
.status::before{content:"";width:9px;height:9px;border-radius:50vmax;background:currentColor}
.busy{color:var(--busy)}.failed{color:var(--failed)}.rest{color:var(--rest)}
.busy::before{animation:breathe 1.6s ease-in-out infinite}
.rest::before{background:transparent;border:2px solid currentColor}
@keyframes breathe{from,to{opacity:1}50.0%{opacity:.25;transform:scale(.8)}}
@media (prefers-reduced-motion:reduce){.busy::before{animation:none}}
footer{display:flex;align-items:center;justify-content:center;gap:8px;padding:22px;font-size:13px;font-weight:600;color:var(--ink-3);letter-spacing:-.01em}
footer svg{width:17px;height:17px;color:var(--accent)}
code{font:13px "JetBrains Mono Variable",ui-monospace,monospace}
""".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class PageText:
    """What one page says. `NAME` in the texts becomes the host name that was asked for. `refresh_s` 0: it does not reload itself."""

    status: int
    tone: str
    word: str
    title: str
    text: str
    refresh_s: int = 0


PAGES: dict[str, PageText] = {
    "starting": PageText(
        status=503, tone="busy", word="Starting", title="NAME is starting",
        text="A release is on its way up. This page looks again by itself.", refresh_s=2,
    ),
    "stopped": PageText(
        status=503, tone="rest", word="Stopped", title="NAME is stopped",
        text="Its owner has stopped it. Start it from its page in the portal, and it answers here again.",
    ),
    "failed": PageText(
        status=503, tone="failed", word="Failed", title="NAME did not come up",
        text="Its last deployment failed and no earlier release is running. The reason and the last log lines are on its page in the portal.",
    ),
    "unreachable": PageText(
        status=503, tone="failed", word="Not answering", title="This app does not answer",
        text="It is deployed, but none of its instances takes requests right now. This page looks again by itself.", refresh_s=5,
    ),
    "deleted": PageText(
        status=410, tone="rest", word="Deleted", title="NAME was deleted",
        text="There is no app at this address any more.",
    ),
    "unknown": PageText(
        status=404, tone="rest", word="No such app", title="No such app",
        text="No app lives at this address. Check the name, or the domain in the app's settings.",
    ),
    "portal": PageText(
        status=503, tone="busy", word="Restarting", title="The portal is restarting",
        text="Apps go on as they are. This page looks again by itself.", refresh_s=3,
    ),
    "portal_api": PageText(
        status=503, tone="busy", word="Restarting", title="The portal is restarting",
        text="Apps go on as they are. Send the request again in a few seconds.", refresh_s=3,
    ),
}  # fmt: skip


def html(page: PageText, name: str) -> str:
    """The whole page; `name` stands for NAME and must be safe in HTML."""
    refresh = f'<meta http-equiv="refresh" content="{page.refresh_s}">' if page.refresh_s else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="robots" content="noindex">{refresh}<title>{page.word} · Moorage</title><style>{STYLE}</style></head>'
        f'<body><main><span class="status {page.tone}">{page.word}</span><h1>{page.title.replace("NAME", name)}</h1>'
        f"<p>{page.text.replace('NAME', name)}</p></main><footer>{MARK}Moorage</footer></body></html>\n"
    )


def plain(page: PageText, name: str) -> str:
    """The same in one line, for clients that do not ask for HTML."""
    return f"{page.title.replace('NAME', name)}. {page.text.replace('NAME', name)}\n"


def log_format(page: PageText) -> str:
    """The page as a HAProxy log-format file. `NAME` becomes the Host, which is safe: it matched a row of a map exactly."""
    return html(page, "\0").replace("%", "%%").replace("\0", "%[var(txn.host)]")


def error_file(page: PageText) -> str:
    """The page as a raw HTTP answer, for `errorfile` (at most 16 kB)."""
    return _raw_answer(page, "text/html; charset=utf-8", html(page, "this app"))


def problem_file(page: PageText) -> str:
    """The same as problem details (RFC 9457), for clients of the REST interface."""
    problem = {"type": "about:blank", "title": page.title, "status": page.status, "detail": page.text}
    return _raw_answer(page, "application/problem+json", json.dumps(problem) + "\n")


def _raw_answer(page: PageText, content_type: str, body: str) -> str:
    reasons = {503: "Service Unavailable", 404: "Not Found", 410: "Gone"}
    head = (
        f"HTTP/1.1 {page.status} {reasons[page.status]}",
        f"content-type: {content_type}",
        f"content-length: {len(body.encode())}",
        "cache-control: no-store",
        *((f"retry-after: {page.refresh_s}",) if page.refresh_s else ()),
    )
    return "\r\n".join((*head, "", body))
