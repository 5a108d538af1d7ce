"""Forms for plans and quotas: people write cores, MB and Mbit/s, rows hold millicores, bytes and bits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms

from portal.plans.models import Plan, TeamQuota

MIB, GIB, MEGA = 1 << 20, 1 << 30, 1_000_000


class UnitField(forms.DecimalField):
    """A figure in `unit`, kept as a whole number of the row's own unit: value × scale."""

    def __init__(self, label: str, unit: str, scale: int, *, least: float = 0, hint: str = "") -> None:
        places = 3 if scale > 1 else 0
        step = {"step": "any" if scale > 1 else 1, "inputmode": "decimal" if scale > 1 else "numeric"}
        help_text = hint
        super().__init__(
            label=label, min_value=Decimal(str(least)), max_value=Decimal(10**9), max_digits=16, decimal_places=places,
            help_text=help_text, widget=forms.NumberInput(attrs=step),
        )  # fmt: skip
        self.unit, self.scale = unit, scale
        self.error_messages |= {
            "required": f"Give a figure{f' in {unit}' if unit else ''}; 0 where that means none.",
            "invalid": "This is not a number.",
            "min_value": f"The least is %(limit_value)s {unit}".strip() + ".",
            "max_decimal_places": "At most three digits after the point." if places else "Give a whole number.",
        }

    def kept(self, shown: Decimal) -> int:
        """The row's value of what a person wrote."""
        return int((shown * self.scale).to_integral_value())

    def shown(self, kept: int) -> str:
        """What a person reads of the row's value."""
        text = f"{Decimal(kept) / self.scale:.3f}".rstrip("0").rstrip(".") if self.scale > 1 else str(kept)
        return text or "0"


class _FiguresForm(forms.Form):
    """A form of UnitFields over one row."""

    def __init__(self, *args: Any, row: Any = None, **kwargs: Any) -> None:
        if row is not None:
            units = {k: f for k, f in self.base_fields.items() if isinstance(f, UnitField)}  # type: ignore[attr-defined]
            kwargs["initial"] = {name: field.shown(getattr(row, name)) for name, field in units.items()} | kwargs.get(
                "initial", {}
            )
        super().__init__(*args, **kwargs)

    def figures(self) -> dict[str, int]:
        """Row values of the fields that are valid."""
        units = {name: field for name, field in self.fields.items() if isinstance(field, UnitField)}
        return {name: field.kept(self.cleaned_data[name]) for name, field in units.items() if name in self.cleaned_data}


class PlanForm(_FiguresForm):
    """Every limit of a plan."""

    name = forms.CharField(max_length=60)
    cpu_millicores = UnitField("CPU", "cores", 1000, least=0.01)
    cpu_weight = UnitField("CPU weight", "", 1, least=1, hint="Share when the host is busy; 100 is usual")
    memory_bytes = UnitField("Memory", "MB", MIB, least=8)
    swap_bytes = UnitField("Swap", "MB", MIB)
    pids = UnitField("Processes", "", 1, least=8)
    disk_bytes = UnitField("Writable layer", "GB", GIB, least=0.016)
    disk_read_bps = UnitField("Read", "MB/s", MEGA)
    disk_write_bps = UnitField("Write", "MB/s", MEGA)
    disk_read_iops = UnitField("Read operations", "per s", 1)
    disk_write_iops = UnitField("Write operations", "per s", 1)
    net_in_bps = UnitField("In", "Mbit/s", MEGA)
    net_out_bps = UnitField("Out", "Mbit/s", MEGA)
    log_bytes_per_s = UnitField("Log rate", "MB/s", MEGA)
    log_bytes = UnitField("Log on disk", "MB", MEGA)
    log_days = UnitField("Logs", "days", 1)
    instances_max = UnitField("Instances", "per app", 1, least=1)
    volumes_max = UnitField("Volumes", "per app", 1)
    domains_max = UnitField("Domains", "per app", 1)
    releases_kept = UnitField("Releases", "kept", 1, least=1)
    image_bytes = UnitField("Image", "MB", MIB, hint="The largest of an app; 0 is no limit but the team's")
    is_default = forms.BooleanField(label="Default for new apps", required=False)

    SECTIONS = (
        ("Compute", "", ("cpu_millicores", "cpu_weight", "memory_bytes", "swap_bytes", "pids")),
        (
            "Disk",
            "0 is no limit",
            ("disk_bytes", "disk_read_bps", "disk_write_bps", "disk_read_iops", "disk_write_iops"),
        ),
        ("Network", "0 is no limit", ("net_in_bps", "net_out_bps")),
        ("Logs", "0 is no limit of the rate", ("log_bytes_per_s", "log_bytes", "log_days")),
        ("Counts", "", ("instances_max", "volumes_max", "domains_max", "releases_kept", "image_bytes")),
    )

    def __init__(self, *args: Any, row: Plan | None = None, **kwargs: Any) -> None:
        if row is not None:
            kwargs["initial"] = {"name": row.name, "is_default": row.is_default}
        super().__init__(*args, row=row or Plan(cpu_millicores=500, memory_bytes=512 * MIB, disk_bytes=GIB), **kwargs)

    def sections(self) -> list[tuple[str, str, list[tuple[forms.BoundField, str]]]]:
        """Headings, what goes for all of their fields, and the fields with their units."""
        units = {name: field.unit for name, field in self.fields.items() if isinstance(field, UnitField)}
        return [(title, note, [(self[name], units[name]) for name in names]) for title, note, names in self.SECTIONS]

    def values(self) -> dict[str, Any]:
        """All fields as the actions take them."""
        return self.figures() | {"name": self.cleaned_data["name"], "is_default": self.cleaned_data["is_default"]}


class NewPlanForm(PlanForm):
    """A plan that is not there yet."""

    slug = forms.SlugField(
        label="Short name", max_length=40, help_text="Lower-case letters, digits and hyphens; the API calls it so.",
        error_messages={"invalid": "Use lower-case letters, digits and hyphens only."},
    )  # fmt: skip


class QuotaForm(_FiguresForm):
    """What a team may use in sum."""

    apps = UnitField("Apps", "", 1)
    instances = UnitField("Instances", "", 1)
    cpu_millicores = UnitField("CPU", "cores", 1000)
    memory_bytes = UnitField("Memory", "GB", GIB)
    disk_bytes = UnitField("Disk", "GB", GIB)
    image_bytes = UnitField("Images", "GB", GIB, hint="Stored image layers, each counted once")
    volumes = UnitField("Volumes", "", 1)
    volume_bytes = UnitField("Volume space", "GB", GIB, hint="The sum of the volumes' sizes, full or not")
    backup_bytes = UnitField("Backups", "GB", GIB, hint="What backups take, compressed, equal parts once")

    def __init__(self, *args: Any, row: TeamQuota | None = None, **kwargs: Any) -> None:
        super().__init__(*args, row=row, **kwargs)

    def bound(self) -> list[tuple[forms.BoundField, str]]:
        """Fields with their units."""
        return [(self[name], field.unit) for name, field in self.fields.items() if isinstance(field, UnitField)]
