"""What the navigation shows, loaded once a request."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest

from portal.accounts.models import Team, User
from portal.fleet.models import Host


def navigation(request: HttpRequest, team: Team | None) -> dict[str, Any]:
    """Teams of the user with their number of apps, the number of hosts for operators. Two queries, kept on the request."""
    kept: dict[str, Any] | None = getattr(request, "_navigation", None)
    if kept is not None:
        return kept
    user = request.user
    assert isinstance(user, User)
    rows = Team.objects.annotate(n_apps=Count("apps", filter=Q(apps__deleting_at=None), distinct=True)).order_by("name")
    mine = rows if user.is_operator else rows.filter(pk__in=user.memberships.values("team"))
    teams = list(mine[:50])
    shown = team or _last(request, teams)
    found = {
        "teams": teams,
        "team": shown,
        "team_apps": next((row.n_apps for row in teams if shown is not None and row.pk == shown.pk), 0),
        "hosts": Host.objects.count() if user.is_operator else 0,
        "user": user,
    }
    request._navigation = found  # type: ignore[attr-defined]
    return found


def _last(request: HttpRequest, teams: list[Any]) -> Team | None:
    """The team looked at last, else the first."""
    slug = request.session.get("team")
    return next((team for team in teams if team.slug == slug), teams[0] if teams else None)
