"""Loading plans: everyone signed in may look, operators may change."""

from __future__ import annotations

from portal.accounts.access import Verb, require_operator
from portal.accounts.actor import Actor
from portal.errors import NotFound
from portal.plans.models import Plan


def get_plan(actor: Actor, slug: str, verb: Verb = "read") -> Plan:
    """The plan; any verb but `read` needs an operator (Forbidden)."""
    if verb != "read":
        require_operator(actor)
    plan = Plan.objects.filter(slug=slug).first()
    if plan is None:
        names = ", ".join(Plan.objects.filter(retired_at=None).values_list("slug", flat=True))
        raise NotFound(f"There is no plan {slug!r}.", f"Plans: {names}.")
    return plan
