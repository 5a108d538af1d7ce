"""The commands. Each makes its calls and shows the answer; a refusal is one sentence and exit status 1."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from moorage import login as logins
from moorage import shown
from moorage.archive import Payload, seekable
from moorage.faults import Fault
from moorage.portal import Portal
from moorage.uploading import upload

app = typer.Typer(help="Deploy, watch and roll back apps on Moorage.", no_args_is_help=True, add_completion=False)

App = Annotated[str, typer.Option("--app", "-a", envvar="MOORAGE_APP", help="The app's name.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait until it is live; 0 does not wait.", min=0, max=600)]
ENDED_WELL = frozenset({"live", "superseded"})
AFTER_WAIT_S = 30.0


def portal() -> Portal:
    """The one we are logged in to."""
    return Portal(logins.load())


@app.command()
def login(url: str, json_: Json = False) -> None:
    """Keep a portal's address and an API token (asked for, or the first line of standard input)."""
    token = typer.prompt("API token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    made = logins.Login(url.rstrip("/"), token)
    who = Portal(made).get("/me")
    logins.save(made)
    _show(json_, who, lambda: shown.out.print(f"Logged in to {made.url} as {who['user']}.", markup=False))


@app.command()
def whoami(json_: Json = False) -> None:
    """Who the token belongs to, and what it may do."""
    who = portal().get("/me")
    teams = [[team["team"], team["role"] or "operator"] for team in who["teams"]]

    def people() -> None:
        shown.out.print(f"{who['user']}, token with {', '.join(who['scopes'])}", markup=False)
        shown.table(("team", "role"), teams, "In no team.")

    _show(json_, who, people)


@app.command()
def apps(json_: Json = False) -> None:
    """Every app that may be seen."""
    here, rows, cursor = portal(), list[dict[str, Any]](), ""
    while True:
        answer = here.get("/apps", **({"cursor": cursor} if cursor else {}))
        rows += answer["items"]
        cursor = answer["next"]
        if not cursor:
            break
    cells = [[row["app"], row["team"], row["state"], _number(row["release"]), row["url"]] for row in rows]
    _show(json_, rows, lambda: shown.table(("app", "team", "state", "release", "address"), cells, "No app yet."))


@app.command()
def status(app: App, json_: Json = False) -> None:
    """An app, its last deployment and its instances."""
    here = portal()
    row, instances = here.get(f"/apps/{app}"), here.get(f"/apps/{app}/instances")

    def people() -> None:
        last = row["deployment"]
        shown.table(
            ("app", "state", "release", "plan", "address"),
            [[row["app"], row["state"], _number(row["release"]), row["plan"], row["url"]]], "",
        )  # fmt: skip
        if last:
            text = f"deployment {last['number']} is {last['state']}" + (f": {last['reason']}" if last["reason"] else "")
            shown.out.print(text, markup=False)
        cells = [
            [one["id"], one["state"], f"release {one['release']}", one["host"], one["reason"]] for one in instances
        ]
        shown.table(("instance", "state", "runs", "host", ""), cells, "No instance runs.")

    _show(json_, row | {"instances": instances}, people)


@app.command()
def deploy(
    image: Annotated[str, typer.Argument(help="An archive of docker save or an OCI layout; - reads standard input.")],
    app: App,
    wait: Wait = 120,
    json_: Json = False,
) -> None:
    """Send an image (only the layers that are not there yet), deploy it, and wait until it is live."""
    here = portal()
    with tempfile.TemporaryFile() as spool:
        source = seekable(sys.stdin.buffer, spool) if image == "-" else _opened(image)
        with source:
            sent = _upload(here, app, source, Path(image).name if image != "-" else "stdin", quiet=json_)
    text = f"Sent {shown.size(sent['sent_bytes'])}"
    text += f"; {shown.size(sent['spared_bytes'])} were there already." if sent["spared_bytes"] else "."
    if not json_:
        shown.out.print(text, markup=False)
    started = time.monotonic()
    found = _moved(here, f"/apps/{app}/deployments", {"image": sent["digest"]}, wait)
    figures = {key: sent[key] for key in ("sent_bytes", "spared_bytes")}
    _show(json_, found | figures, lambda: _told(found, time.monotonic() - started))


@app.command()
def rollback(
    app: App,
    release: Annotated[int, typer.Argument(help="Its number; the one that was live before, when left out.")] = 0,
    wait: Wait = 120,
    json_: Json = False,
) -> None:
    """Move an app to an older release."""
    started = time.monotonic()
    found = _moved(portal(), f"/apps/{app}/rollback", {"release": release} if release else {}, wait)
    _show(json_, found, lambda: _told(found, time.monotonic() - started))


@app.command()
def releases(app: App, limit: int = 20, json_: Json = False) -> None:
    """The newest releases of an app."""
    rows = portal().get(f"/apps/{app}/releases", limit=limit)["items"]
    cells = [
        [str(row["number"]), "live" if row["live"] else "", row["reference"] or row["image"][7:19], shown.size(row["size_bytes"]),
         shown.when(row["created_at"]), row["created_by"] or "the platform"]
        for row in rows
    ]  # fmt: skip
    columns = ("release", "", "image", "size", "made", "by")
    _show(json_, rows, lambda: shown.table(columns, cells, f"Nothing was deployed to {app} yet."))


@app.command()
def logs(
    app: App,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    since: Annotated[str, typer.Option(help="10m, a time, or a line's id.")] = "",
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.", min=1)] = 100,
    json_: Json = False,
) -> None:
    """Lines of an app's log."""
    params: dict[str, Any] = {"limit": lines} | ({"since": since} if since else {})
    if follow:
        params["follow"] = "true"
    for line in portal().lines(f"/apps/{app}/logs", **params):
        text = json.dumps(line) if json_ else f"{line['at']} {line['name']} {line['text']}"
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


@app.command(name="open")
def open_(app: App, json_: Json = False) -> None:
    """An app's address, opened in a browser where there is one."""
    row = portal().get(f"/apps/{app}")

    def people() -> None:
        shown.out.print(row["url"], markup=False)
        if sys.stdout.isatty():
            webbrowser.open(row["url"])

    _show(json_, {"url": row["url"]}, people)


def _opened(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise Fault(f"{path} cannot be read: {error.strerror}.", "Make it with docker save -o image.tar …") from error


def _upload(here: Portal, app: str, source: BinaryIO, name: str, *, quiet: bool) -> dict[str, Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=shown.err, transient=True, disable=quiet or not sys.stderr.isatty()) as bar:
        task = bar.add_task("Sending", total=None)

        def moved(sent: int, payload: Payload) -> None:
            words = "The portal reads it" if sent == payload.size else "Sending"
            bar.update(task, completed=sent, total=payload.size, description=words)

        return upload(here, app, source, name, moved)


def _moved(here: Portal, path: str, body: dict[str, Any], wait_s: float) -> dict[str, Any]:
    """A deployment as it ended within `wait_s`; raises Fault for one that failed, or that has not ended yet."""
    answer = here.send(
        "POST", path, json=body, params={"wait": wait_s} if wait_s else {}, timeout_s=wait_s + AFTER_WAIT_S
    )
    found: dict[str, Any] = answer.json()
    return found


def _told(found: dict[str, Any], seconds: float) -> None:
    text = f"Release {found['release']} of {found['app']} is {found['state']}"
    ended = found["state"] in ENDED_WELL
    shown.out.print(f"{text} after {seconds:.1f} s: {found['url']}" if ended else f"{text}.", markup=False)


def _number(release: int | None) -> str:
    return "" if release is None else str(release)


def _show(as_json: bool, value: Any, people: Callable[[], None]) -> None:
    if as_json:
        shown.as_json(value)
    else:
        people()


def main() -> None:
    """Exit status 0 when it was done, 1 when it was refused or failed, 2 for wrong usage."""
    try:
        app()
    except Fault as fault:
        if "--json" in sys.argv:
            shown.as_json(fault.body or {"detail": fault.message, "hint": fault.hint})
        shown.err.print(f"moorage: {fault.message}", markup=False)
        for line in _last_log(fault.body):
            shown.err.print(f"  {line}", markup=False)
        if fault.hint:
            shown.err.print(f"  {fault.hint}", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _last_log(body: Any) -> list[str]:
    lines = body.get("last_log") if isinstance(body, dict) else None
    return [str(line) for line in lines] if isinstance(lines, list) else []
