"""Tags and filters of the pages: figures, times, icons, meters, sparklines, form fields."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django import template
from django.forms import BoundField
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from portal import figures
from portal.pages.sidebar import navigation

register = template.Library()

FLAT = mark_safe('<svg class="spark off" viewBox="0 0 92 26" aria-hidden="true"><path d="M0,25 L92,25"/></svg>')
PAST = {
    "create": "created", "update": "changed", "change": "changed", "delete": "deleted", "retire": "retired",
    "deploy": "deployed", "rollback": "rolled back", "restart": "restarted", "start": "started", "stop": "stopped",
    "scale": "scaled", "cancel": "cancelled a deployment of", "environment": "redeployed", "set_env": "set variables of",
    "set_quota": "set the quota of", "add_member": "added", "remove_member": "removed", "change_role": "changed the role of",
    "attach": "attached a volume to", "detach": "detached a volume from", "resize": "resized",
    "upload": "uploaded", "push": "pushed", "redeploy": "redeployed", "create_token": "made", "revoke_token": "revoked", "move_to_plan": "changed the plan of",
    "password_link": "made a password link for", "ask_password": "asked for a password link for", "set_password": "set a new password of",
}  # fmt: skip


@register.filter(name="size")
def size_filter(value: float | None) -> str:
    """Bytes → 512 MB."""
    return figures.size(value)


@register.filter
def bits(value: float | None) -> str:
    """Bits per second → 50 Mbit/s."""
    return figures.bits(value)


@register.filter
def cores(value: float | None) -> str:
    """Millicores → 0.5 core."""
    return figures.cores(value)


@register.filter
def span(seconds: float | None) -> str:
    """Seconds → 0.6 s."""
    return "" if seconds is None else figures.duration(seconds)


@register.filter
def short(value: float | None) -> str:
    """A figure with at most three digits that matter."""
    return figures.short(float(value or 0))


@register.filter
def network(plan: Any) -> str:
    """A plan's network rates, as the overview's chart has them: of 200 Mbit/s in, 100 Mbit/s out."""
    rates = [
        f"{figures.bits(rate)} {way}" for rate, way in ((plan.net_in_bps, "in"), (plan.net_out_bps, "out")) if rate
    ]
    return f"of {', '.join(rates)}" if rates else ""


@register.filter
def milli(value: float | None) -> str:
    """Millicores → the bare figure in cores: 0.5."""
    return figures.short(float(value or 0) / 1000)


@register.filter
def said(verb: str) -> str:
    """An audit verb in the past: set_quota → set quota of, create → created."""
    return PAST.get(verb, verb.replace("_", " "))


@register.filter
def facts(details: dict[str, Any]) -> str:
    """The details of an audit row on one line."""
    return ", ".join(_fact(key, value) for key, value in details.items() if value not in ("", None, False, [], {}))


def _fact(key: str, value: Any) -> str:
    name = key.removesuffix("_bytes").removesuffix("_millicores").removeprefix("is_").replace("_", " ")
    if value is True:
        return name
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{name} {figures.size(value)}"
    if key.endswith("_millicores") and isinstance(value, int):
        return f"{name} {figures.cores(value)}"
    return f"{name} {_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(_fact(key, inner) for key, inner in value.items()) + ")"
    if isinstance(value, str) and value.startswith("sha256:"):
        return digest(value)
    return " ".join(str(part) for part in value) if isinstance(value, list) else str(value)


@register.filter
def digest(value: str) -> str:
    """sha256:8f2c… shortened to what tells two apart."""
    kind, _, text = value.partition(":")
    return f"{kind}:{text[:12]}" if text else value[:12]


@register.filter
def initials(name: str) -> str:
    """Two letters for an avatar: Harbour Lab → HL."""
    words = [word for word in name.replace("-", " ").replace("@", " ").split() if word]
    return "".join(word[0] for word in words[:2]).upper() or "?"


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """A <time> with relative words; the exact moment is shown on hover and kept fresh by the page."""
    if moment is None:
        return "never"
    return format_html(
        '<time datetime="{}" title="{} UTC" data-ago>{}</time>',
        moment.isoformat(),
        moment.strftime("%Y-%m-%d %H:%M:%S"),
        figures.ago(moment, timezone.now()),
    )


@register.simple_tag
def icon(name: str, css: str = "") -> SafeString:
    """One icon of the sprite, hidden from screen readers."""
    return format_html(
        '<svg class="i {}" aria-hidden="true"><use href="{}#{}"/></svg>', css, static("img/icons.svg"), name
    )


@register.simple_tag
def meter(used: float | None, allowed: float | None, label: str = "") -> SafeString:
    """A thin bar: how much of a limit is in use; amber from 85 %, red from 98 %."""
    part = figures.share(float(used or 0), float(allowed or 0))
    tone = "bad" if part >= 98 else "warn" if part >= 85 else ""
    return format_html(
        '<svg class="meter {}" role="img" aria-label="{}"><rect width="{}%" height="6" rx="3"/></svg>',
        tone,
        f"{label} {part:.0f} % in use".strip(),
        f"{part:.1f}",
    )


@register.simple_tag
def spark(values: Iterable[float] | None, top: float = 0) -> SafeString:
    """A 92 × 26 line of recent values, scaled to the larger of `top` and their maximum; a flat grey line for none."""
    points = list(values or [])
    if len(points) < 2:
        return FLAT
    high = max(top, *points) or 1
    step = 92 / (len(points) - 1)
    line = " L".join(f"{n * step:.1f},{25 - 23 * value / high:.1f}" for n, value in enumerate(points))
    return format_html(
        '<svg class="spark" viewBox="0 0 92 26" preserveAspectRatio="none" aria-hidden="true"><path d="M{}"/></svg>',
        line,
    )


@register.inclusion_tag("components/sidebar.html", takes_context=True)
def sidebar(context: template.Context, where: str) -> dict[str, Any]:
    """The navigation; `where` tells the two copies of a page (beside and as a drawer) apart."""
    found = navigation(context["request"], context.get("team"))
    return found | {"where": where, "section": context.get("section", ""), "csrf_token": context.get("csrf_token")}


@register.inclusion_tag("components/field.html")
def field(bound: BoundField, unit: str = "", hint: str = "", css: str = "") -> dict[str, Any]:
    """A labelled form field with its unit, hint and errors."""
    described = f"{bound.id_for_label}-hint" if hint or bound.help_text else ""
    attrs: dict[str, str | bool] = {"aria-describedby": described} if described else {}
    if bound.errors:
        attrs["aria-invalid"] = "true"
    return {
        "field": bound,
        "widget": bound.as_widget(attrs=attrs),
        "unit": unit,
        "hint": hint or bound.help_text,
        "css": css,
        "described": described,
    }
