"""haproxy.cfg and the files beside it, as text. Pure: the same table gives the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from worker.ingress_pages import PAGES, PageText, error_file, log_format, plain, problem_file
from worker.ingress_table import Table

ROUTES_FILE, CONFIG_FILE, HOSTS_MAP, STATES_MAP, PAGES_FOLDER = (
    "routes.json",
    "haproxy.cfg",
    "hosts.map",
    "states.map",
    "pages",
)
STATE_PAGES = ("starting", "stopped", "failed", "unreachable", "deleted")
APP_ERROR, PORTAL_ERROR, API_ERROR = "unreachable.http", "portal.http", "portal_api.http"
API_PATHS = ("/api/", "/v2/")  # whose clients read problem details, not pages
# Idle connections that are kept to an instance, told for each: a server that is added at run time has no defaults and keeps
# none, so that every request would open its own. Half of the idle ones are closed each second: a process of an app may hang
# on each, and one that the app closes just now must not be given a request.
SERVER_OPTIONS = "pool-max-conn 256 pool-purge-delay 1s"
PORTAL_TIMEOUT_S = 660  # longer than the longest `wait=` of 600 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """What the configuration depends on besides the routes. `maxconn` comes from the hard limit of open files, `threads` from
    the cores: the apps need theirs, and threads that share one with them wait for each other's locks.

    `account` is the user and group HAProxy's workers become, "" to stay who started them.
    """

    home: Path
    binds: tuple[str, ...]
    admin_socket: Path
    web_socket: Path
    portal_names: tuple[str, ...]
    scheme: str = "http"
    maxconn: int = 9000
    threads: int = 1
    account: str = ""


def files(ingress: Ingress, table: Table) -> dict[str, str]:
    """All files below `ingress.home`, by relative name. HAProxy started with them serves exactly `table`."""
    digest = skeleton_digest(ingress, table.slots)
    found = {f"{PAGES_FOLDER}/{name}.html": log_format(PAGES[name]) for name in (*STATE_PAGES, "unknown")}
    found[f"{PAGES_FOLDER}/{APP_ERROR}"] = error_file(PAGES["unreachable"])
    found[f"{PAGES_FOLDER}/{PORTAL_ERROR}"] = error_file(PAGES["portal"])
    found[f"{PAGES_FOLDER}/{API_ERROR}"] = problem_file(PAGES["portal_api"])
    found[HOSTS_MAP] = map_text(table.hosts)
    found[STATES_MAP] = map_text(table.states)
    found[ROUTES_FILE] = json.dumps(table.to_json(), separators=(",", ":"))
    found[CONFIG_FILE] = "\n".join((*_head(ingress, digest), *_backends(ingress, table), ""))
    return found


def map_text(rows: dict[str, str]) -> str:
    """A map file; the first line keeps an empty one from being nothing."""
    return "# name value\n" + "".join(f"{key} {value}\n" for key, value in sorted(rows.items()))


def skeleton_digest(ingress: Ingress, slots: int) -> str:
    """Digest of all that only a reload can change: the configuration without servers, and the pages."""
    pages = [log_format(p) + error_file(p) + problem_file(p) for p in PAGES.values()]
    text = "\n".join((*_head(ingress, ""), *_backends(ingress, Table(slots=slots)), *pages))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _head(i: Ingress, digest: str) -> Iterable[str]:
    yield from (
        "# Written by worker.ingress; edits are lost. The routes are in routes.json.",
        "global",
        f"  setenv MOORAGE_CONFIG {digest or 'none'}",
        f"  stats socket {i.admin_socket} mode 600 level admin expose-fd listeners",
        f"  maxconn {i.maxconn}",
        f"  nbthread {i.threads}",
        *((f"  user {i.account}", f"  group {i.account}") if i.account else ()),
        "  hard-stop-after 1h",
        "defaults",
        "  mode http",
        "  timeout connect 3s",
        "  timeout http-request 30s",
        "  timeout http-keep-alive 60s",
        f"  timeout client {PORTAL_TIMEOUT_S}s",
        "  timeout server 300s",
        "  timeout tunnel 24h",
        "  timeout client-fin 30s",
        "  retries 3",
        "  option redispatch 1",
        "  retry-on conn-failure empty-response",
        "frontend web",
        *(f"  bind {b}" for b in i.binds),
    )
    yield from _request_rules(i)


def _request_rules(i: Ingress) -> Iterable[str]:
    yield from (
        "  http-request set-var(txn.host) req.hdr(host),host_only,lower",
        "  http-request set-var(txn.id) uuid()",
        "  http-request del-header x-forwarded- -m beg",
        *(f"  http-request del-header {name}" for name in ("forwarded", "x-real-ip", "proxy")),
        "  http-request set-header X-Forwarded-For %[src]",
        f"  http-request set-header X-Forwarded-Proto {i.scheme}",
        "  http-request set-header X-Forwarded-Host %[req.hdr(host)]",
        "  http-request set-header X-Request-ID %[var(txn.id)]",
        "  http-response set-header X-Request-ID %[var(txn.id)]",
        # A request that may change something is never sent twice; connection failures are retried all the same.
        "  http-request disable-l7-retry unless { method GET HEAD OPTIONS }",
        f"  acl is_portal var(txn.host) -m str {' '.join(i.portal_names)}",
        f"  http-request set-var(txn.backend) var(txn.host),map({i.home / HOSTS_MAP}) if !is_portal",
        f"  use_backend portal_api if is_portal {{ path_beg {' '.join(API_PATHS)} }}",
        "  use_backend portal if is_portal",
        "  use_backend %[var(txn.backend)] if { var(txn.backend) -m found }",
        "  default_backend pages",
    )


def _pages(i: Ingress) -> Iterable[str]:
    """Where names without a server lead. A backend of its own: no request of an app that runs meets its twelve rules."""
    yield from (
        "backend pages",
        f"  http-request set-var(txn.state) var(txn.host),map({i.home / STATES_MAP},unknown)",
        "  acl wants_html req.hdr(accept) -m sub text/html",
    )
    for name in (*STATE_PAGES, "unknown"):
        yield from _return_rules(i, name, PAGES[name])


def _return_rules(i: Ingress, name: str, page: PageText) -> Iterable[str]:
    when = f"if {{ var(txn.state) -m str {name} }}"
    retry = f" hdr Retry-After {page.refresh_s or 30}" if page.status == 503 else ""
    extra = f"hdr Cache-Control no-store hdr X-Request-ID %[var(txn.id)]{retry}"
    file = i.home / PAGES_FOLDER / f"{name}.html"
    line = plain(page, "%[var(txn.host)]").strip().replace('"', "").replace("'", "’")
    yield f'  http-request return status {page.status} content-type "text/html; charset=utf-8" lf-file {file} {extra} {when} wants_html'
    yield f'  http-request return status {page.status} content-type "text/plain; charset=utf-8" lf-string "{line}\\n" {extra} {when}'


def _backends(i: Ingress, table: Table) -> Iterable[str]:
    yield from _pages(i)
    error = i.home / PAGES_FOLDER
    # There is a second between retries. A browser soon gets a page that reloads itself; a pipeline waits as long as the
    # portal takes to start.
    for name, retries, file in (("portal", 5, PORTAL_ERROR), ("portal_api", 10, API_ERROR)):
        yield from (
            f"backend {name}",
            f"  timeout server {PORTAL_TIMEOUT_S}s",
            f"  retries {retries}",
            *(f"  errorfile {code} {error / file}" for code in (502, 503, 504)),
            f"  server web unix@{i.web_socket}",
        )
    by_slot = {r.slot: r for r in table.routes if r.slot is not None}
    for slot in range(table.slots):
        yield f"backend app_{slot}"
        yield "  balance leastconn"
        yield from (f"  errorfile {code} {error / APP_ERROR}" for code in (502, 503, 504))
        route = by_slot.get(slot)
        if route:
            yield from (f"  server {s.name} {s.address}:{s.port} {SERVER_OPTIONS}" for s in route.servers)
