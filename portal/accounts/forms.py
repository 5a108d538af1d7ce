"""Forms about people: tokens, members, users, themes."""

from __future__ import annotations

import datetime as dt

from django import forms
from django.utils import timezone

from portal.accounts.models import Membership, Role, User

SCOPES = {
    "read": ("Read", "Look at apps, logs and metrics."),
    "deploy": ("Deploy", "Also deploy, roll back, start, stop and restart. Right for most pipelines."),
    "write": ("Write", "Also create, configure, scale and delete apps."),
    "operator": ("Operator", "Also plans, quotas, hosts, and every team."),
}
LIFETIMES = (("90", "90 days"), ("30", "30 days"), ("365", "1 year"), ("", "Until it is revoked"))


class MembershipChoice(forms.ModelChoiceField):  # type: ignore[type-arg]  # not generic at run time
    """One of a person's teams, with the role there."""

    def label_from_instance(self, obj: Membership) -> str:
        """Harbour Lab, as owner."""
        return f"{obj.team.name}, as {obj.role}"


class TokenForm(forms.Form):
    """A new token for one of the person's own memberships."""

    name = forms.CharField(
        label="What is it for", max_length=80, widget=forms.TextInput(attrs={"placeholder": "ci of tide-api"})
    )
    membership = MembershipChoice(Membership.objects.none(), label="Team", empty_label=None)
    scope = forms.ChoiceField(label="It may", initial="deploy", widget=forms.RadioSelect)
    app_slug = forms.CharField(
        label="Only this app",
        max_length=40,
        required=False,
        widget=forms.TextInput(attrs={"placeholder": "all apps of the team"}),
    )
    days = forms.ChoiceField(label="Ends after", choices=LIFETIMES, initial="90", required=False)

    def __init__(self, *args: object, user: User, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        rows = Membership.objects.filter(user=user).select_related("team").order_by("team__name")
        team_field, scope_field = self.fields["membership"], self.fields["scope"]
        assert isinstance(team_field, forms.ModelChoiceField) and isinstance(scope_field, forms.ChoiceField)
        team_field.queryset = rows
        offered = [key for key in SCOPES if key != "operator" or user.is_operator]
        scope_field.choices = [(key, SCOPES[key][0]) for key in offered]

    def expires_at(self) -> dt.datetime | None:
        """When it ends; None for never."""
        days = self.cleaned_data["days"]
        return timezone.now() + dt.timedelta(days=int(days)) if days else None


class MemberForm(forms.Form):
    """Someone with an account joins a team."""

    who = forms.CharField(
        label="Username or e-mail", widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none"})
    )
    role = forms.ChoiceField(choices=Role.choices, initial=Role.DEVELOPER)

    def clean_who(self) -> User:
        """The person meant."""
        text = self.cleaned_data["who"].strip()
        field = "email__iexact" if "@" in text else "username"
        user = User.objects.filter(**{field: text}, is_active=True).first()
        if user is None:
            raise forms.ValidationError(f"Nobody here is called {text}. An operator makes accounts on the page Users.")
        return user


class ForgotForm(forms.Form):
    """Who lost the password."""

    who = forms.CharField(
        label="Username or e-mail",
        max_length=254,
        widget=forms.TextInput(attrs={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"}),
    )


class NewPasswordForm(forms.Form):
    """A password, twice."""

    password = forms.CharField(
        label="New password",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        strip=False,
        help_text="At least 8 characters.",
    )
    again = forms.CharField(
        label="Once more", widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}), strip=False
    )

    def clean_again(self) -> str:
        """The same as the first."""
        again: str = self.cleaned_data["again"]
        if again != self.cleaned_data.get("password", again):
            raise forms.ValidationError("The two are not the same.")
        return again


class UserForm(forms.Form):
    """A new person (operators)."""

    username = forms.CharField(
        max_length=40,
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none"}),
        help_text="Lower-case letters, digits, dots, hyphens and underscores.",
    )
    email = forms.EmailField(label="E-mail", widget=forms.EmailInput(attrs={"autocomplete": "off"}))
    password = forms.CharField(
        min_length=8,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="At least 8 characters. Tell it the person another way; it can be changed under Account.",
    )
    is_operator = forms.BooleanField(label="Operator of the platform", required=False)
