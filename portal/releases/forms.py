"""Forms about running apps."""

from __future__ import annotations

from typing import Any

from django import forms

from portal.hosting.models import App
from portal.plans.models import Plan


class ScaleForm(forms.Form):
    """How many instances of `web`."""

    web = forms.IntegerField(
        label="Instances", min_value=1, widget=forms.NumberInput(attrs={"inputmode": "numeric"}),
        error_messages={"required": "Give a number of instances.", "invalid": "Give a whole number.", "min_value": "At least one; to run none, stop the app."},
    )  # fmt: skip

    def __init__(self, *args: Any, app: App, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.most = app.plan.instances_max
        self.fields["web"].help_text = f"Plan {app.plan.name} allows {self.most}."

    def clean_web(self) -> int:
        """The number, within the plan."""
        count = int(self.cleaned_data["web"])
        if count > self.most:
            raise forms.ValidationError(
                f"{count} is more than the {self.most} this plan allows; choose a larger plan or fewer instances."
            )
        return count


class PlanChoice(forms.Form):
    """Another plan for an app; its own may be one that is offered to no new app."""

    plan = forms.ModelChoiceField(
        Plan.objects.none(),
        to_field_name="slug",
        empty_label=None,
        error_messages={"invalid_choice": "There is no such plan."},
    )

    def __init__(self, *args: Any, app: App, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["plan"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = Plan.objects.filter(retired_at=None) | Plan.objects.filter(pk=app.plan_id)
