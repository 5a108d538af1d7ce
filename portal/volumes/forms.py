"""Forms about volumes: people write GB, rows hold bytes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms

from portal.plans.forms import GIB, UnitField
from portal.volumes.models import Volume

_PLAIN = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class SizeForm(forms.Form):
    """How large a volume is to be."""

    size_bytes = UnitField("Size", "GB", GIB, least=0.016)

    @property
    def wanted_bytes(self) -> int:
        """The size in bytes."""
        field = self.fields["size_bytes"]
        assert isinstance(field, UnitField)
        return field.kept(Decimal(self.cleaned_data["size_bytes"]))

    @classmethod
    def of(cls, volume: Volume, data: Any = None) -> SizeForm:
        """The form over a volume."""
        field = cls.base_fields["size_bytes"]
        assert isinstance(field, UnitField)
        return cls(data, initial={"size_bytes": field.shown(volume.size_bytes)})


class NewVolumeForm(SizeForm):
    """Name, size and how many write."""

    field_order = ("name", "size_bytes", "shared")
    name = forms.CharField(
        max_length=40, widget=forms.TextInput(attrs=_PLAIN | {"placeholder": "data"}),
        error_messages={"required": "Give the volume a name."}, help_text="Lower-case letters, digits and hyphens.",
    )  # fmt: skip
    shared = forms.BooleanField(required=False)


class ScheduleForm(forms.Form):
    """How often, and how many are kept."""

    hours = forms.ChoiceField(
        label="Back up", choices=[(0, "never by itself"), (1, "every hour"), (6, "every 6 hours"), (24, "every day"), (168, "every week")],
    )  # fmt: skip
    kept = forms.IntegerField(
        label="Keep", min_value=1, max_value=365, help_text="Of those made by themselves; what you asked for stays.",
        error_messages={"required": "Say how many are kept.", "invalid": "Give a whole number."},
    )  # fmt: skip


class AttachForm(forms.Form):
    """A volume of the team, and where it goes."""

    volume = forms.ModelChoiceField(
        Volume.objects.none(), to_field_name="name", empty_label=None,
        error_messages={"required": "Choose a volume.", "invalid_choice": "There is no such volume."},
    )  # fmt: skip
    path = forms.CharField(
        label="Path in the app", max_length=255, widget=forms.TextInput(attrs=_PLAIN | {"placeholder": "/data"}),
        error_messages={"required": "Say where it goes, such as /data."},
    )  # fmt: skip
    subpath = forms.CharField(
        label="Folder in the volume", max_length=255, required=False,
        widget=forms.TextInput(attrs=_PLAIN | {"placeholder": "uploads"}), help_text="Empty: the whole volume. A missing folder is made.",
    )  # fmt: skip
    read_only = forms.BooleanField(required=False)

    def __init__(self, *args: Any, volumes: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["volume"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = volumes
