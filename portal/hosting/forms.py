"""Forms about apps: name and plan, settings, environment."""

from __future__ import annotations

import re
from typing import Any

from django import forms

from portal.hosting.models import App
from portal.images.tags import is_tag
from portal.plans.models import Plan

_NAME = r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?"
NAME_RULE = "Lower-case letters, digits and hyphens, beginning with a letter. It becomes the address."


class NewAppForm(forms.Form):
    """A name and a plan."""

    slug = forms.CharField(
        label="Name", max_length=40, help_text=NAME_RULE, error_messages={"required": "Give the app a name."},
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )  # fmt: skip
    plan = forms.ModelChoiceField(
        Plan.objects.none(), to_field_name="slug", label="Plan for each instance", empty_label=None,
        error_messages={"required": "Choose a plan.", "invalid_choice": "This plan is not offered any more; choose another."},
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["plan"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = Plan.objects.filter(retired_at=None)

    def clean_slug(self) -> str:
        """The name, or what is wrong with it."""
        slug = str(self.cleaned_data["slug"]).strip()
        if not re.fullmatch(_NAME, slug):
            raise forms.ValidationError(_name_trouble(slug))
        return slug


def _name_trouble(slug: str) -> str:
    if slug != slug.lower():
        return f"Capital letters cannot stand in a host name: try {slug.lower()}."
    if slug[0] == "-" or slug[-1] == "-":
        return "A name neither begins nor ends with a hyphen."
    if not slug[0].isalpha():
        return "A name begins with a letter."
    bad = sorted({char for char in slug if not re.match(r"[a-z0-9-]", char)})
    return f"A name cannot have {' '.join(repr(char) for char in bad)}: use letters, digits and hyphens."


class SettingsForm(forms.Form):
    """Port and health path of an app; empty means what the image says."""

    port = forms.IntegerField(
        min_value=1, max_value=65535, required=False, widget=forms.NumberInput(attrs={"inputmode": "numeric"}),
        help_text="Empty: the port the image exposes, else 8080.",
        error_messages={"max_value": "Ports end at 65535.", "min_value": "Ports begin at 1.", "invalid": "A port is a whole number."},
    )  # fmt: skip
    health_path = forms.CharField(
        label="Health path", max_length=255, required=False, widget=forms.TextInput(attrs={"placeholder": "/health", "spellcheck": "false"}),
        help_text="Asked with GET until it answers below 400. Empty: the port must accept connections.",
    )  # fmt: skip

    def clean_health_path(self) -> str:
        """A path, or nothing."""
        path = str(self.cleaned_data["health_path"]).strip()
        if path and not path.startswith("/"):
            raise forms.ValidationError(f"A path begins with a slash: /{path[:80]}")
        return path

    @classmethod
    def of(cls, app: App, data: Any = None) -> SettingsForm:
        """The form over an app."""
        return cls(data, initial={"port": app.port, "health_path": app.health_path})


class PushForm(forms.Form):
    """Which pushes deploy."""

    deploy_on_push = forms.BooleanField(label="Deploy what is pushed", required=False)
    follow_tag = forms.CharField(
        label="Tag", max_length=128, widget=forms.TextInput(attrs={"spellcheck": "false", "autocapitalize": "none"}),
        help_text="A push of this tag starts a deployment; other tags are kept and wait.",
        error_messages={"required": "Name the tag to follow, such as latest."},
    )  # fmt: skip

    def clean_follow_tag(self) -> str:
        """A tag."""
        tag = str(self.cleaned_data["follow_tag"]).strip()
        if not is_tag(tag):
            raise forms.ValidationError(
                "A tag has letters, digits, dots, hyphens and underscores, and begins with none of - and dot."
            )
        return tag

    @classmethod
    def of(cls, app: App, data: Any = None) -> PushForm:
        """The form over an app."""
        return cls(data, initial={"deploy_on_push": app.deploy_on_push, "follow_tag": app.follow_tag})


class VariableForm(forms.Form):
    """One variable, new or changed."""

    key = forms.CharField(
        label="Name", max_length=128, error_messages={"required": "Give the variable a name."},
        widget=forms.TextInput(attrs={"placeholder": "DATABASE_URL", "autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}),
    )  # fmt: skip
    value = forms.CharField(
        required=False, strip=False, widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "no_optional": True}),
    )  # fmt: skip
