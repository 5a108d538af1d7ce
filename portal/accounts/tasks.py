"""What the control queue does for people."""

from __future__ import annotations

from smtplib import SMTPException

from celery import shared_task

from portal.accounts.models import User
from portal.accounts.passwords import look_for_account, mail_link
from portal.hints import TASK_MAIL_LINK, TASK_PASSWORD_ASKED


@shared_task(name=TASK_PASSWORD_ASKED)  # type: ignore[untyped-decorator]
def password_asked(who: str) -> None:
    """Find the account that somebody asked a link for; nobody waits for this, so its time tells nothing."""
    look_for_account(who)


@shared_task(name=TASK_MAIL_LINK, autoretry_for=(OSError, SMTPException), max_retries=3, default_retry_delay=20)  # type: ignore[untyped-decorator]
def mail_password_link(user_id: int) -> None:
    """Mail a link that sets a new password; the link is made here, so that it lies in no queue."""
    user = User.objects.filter(pk=user_id, is_active=True).first()
    if user is not None:
        mail_link(user)
