"""How pages carry out an action: a refusal becomes a sentence at the top of the page, or in the form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django import forms
from django.contrib import messages
from django.http import HttpRequest

from portal.errors import PortalError


@contextmanager
def told(request: HttpRequest, done: str = "") -> Iterator[None]:
    """Do something; say `done` when it worked, and the refusal's own words when it did not."""
    try:
        yield
    except PortalError as error:
        messages.error(request, sentence(error))
    else:
        if done:
            messages.success(request, done)


@contextmanager
def refused(form: forms.BaseForm, field: str | None = None) -> Iterator[None]:
    """Do something with a valid form; a refusal becomes an error of the form, so that nothing typed is lost."""
    try:
        yield
    except PortalError as error:
        form.add_error(field, sentence(error))


def sentence(error: PortalError) -> str:
    """Message and way out."""
    return f"{error.message} {error.hint}".strip()
