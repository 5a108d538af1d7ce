"""Links that set a new password: an operator makes one, or a person has it mailed. Each works once, for a day."""

from __future__ import annotations

import datetime as dt

from axes.utils import reset as forget_failed_attempts
from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.encoding import force_str
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode

from portal import hints
from portal.accounts.access import require_operator
from portal.accounts.actor import Actor
from portal.accounts.models import User
from portal.audit.actions import record
from portal.audit.models import Entry
from portal.config import config
from portal.errors import Conflict, Invalid, PortalError

VALID_HOURS = settings.PASSWORD_RESET_TIMEOUT // 3600
MAILS_PER_HOUR = 3
_TEXT = """Somebody asked for a new password for {user} at {portal}.

Set it here; the link works once, within {hours} hours:
{link}

If it was not you, do nothing: the password stays as it is.
"""


class DeadLink(PortalError):
    """A link that was used, is too old, or was never one."""

    code = "dead_link"
    status = 410


def _link(user: User) -> str:
    """The token is a digest of the password's hash and the last sign-in: either change ends it, and nothing is kept."""
    key, token = urlsafe_base64_encode(str(user.pk).encode()), default_token_generator.make_token(user)
    return config().public_url + reverse("accounts:new_password", args=[key, token])


def make_link(actor: Actor, user: User) -> str:
    """A link for a person who lost the password (operators). Raises Conflict for one who may not sign in."""
    require_operator(actor)
    if not user.is_active:
        raise Conflict(f"{user.username} may not sign in.", "Make the person active first.")
    record(actor, "password_link", "user", user.username)
    return _link(user)


def ask_for_link(who: str) -> None:
    """Have a link mailed to whoever has this name or address, if anybody has. The caller is not told, nor is it looked up here:
    the time that would take tells who has an account, so the control worker does it."""
    hints.password_asked(who)


@transaction.atomic
def look_for_account(who: str) -> None:
    """Have a link mailed to whoever has this name or address, if anybody has. Three an hour at most."""
    field = "email__iexact" if "@" in who else "username"
    user = User.objects.select_for_update().filter(**{field: who.strip()}, is_active=True).first()
    if user is None:
        return
    hour = timezone.now() - dt.timedelta(hours=1)
    asked = Entry.objects.filter(verb="ask_password", object_name=user.username, at__gte=hour).count()
    if asked < MAILS_PER_HOUR:
        record(Actor(user=user, door="page", scopes=frozenset()), "ask_password", "user", user.username)
        hints.mail_password_link(user.pk)


def mail_link(user: User) -> None:
    """Send the mail; raises what smtplib raises."""
    portal = config().public_url
    text = _TEXT.format(user=user.username, portal=portal, hours=VALID_HOURS, link=_link(user))
    send_mail(f"Your password at {config().portal_host}", text, None, [user.email])


def user_of_link(key: str, token: str) -> User:
    """Whose password a link sets; raises DeadLink."""
    try:
        pk = int(force_str(urlsafe_base64_decode(key)))
    except ValueError:
        pk = 0
    user = User.objects.select_for_update().filter(pk=pk, is_active=True).first()
    if user is None or not default_token_generator.check_token(user, token):
        raise DeadLink(
            f"This link was used, or is older than {VALID_HOURS} hours, or is not whole.", "Ask for another one."
        )
    return user


@transaction.atomic
def set_password(key: str, token: str, password: str) -> User:
    """Spend a link. Every browser is signed out, tokens stay, wrong attempts are forgotten. Raises DeadLink, Invalid."""
    user = user_of_link(key, token)
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid(" ".join(error.messages)) from None
    user.set_password(password)
    user.save(update_fields=["password"])
    forget_failed_attempts(username=user.username)
    record(Actor(user=user, door="page"), "set_password", "user", user.username)
    return user
