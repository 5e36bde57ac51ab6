"""What operators type. Forms read and shape; the services decide."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from federation.models import Member, Venue
from federation.money import MAX_MICRO, MICRO

NAME_HELP = "Letters, digits, dot, dash and underscore; it cannot be changed later."
MOST = Decimal(MAX_MICRO) / MICRO


def _name() -> forms.CharField:
    return forms.CharField(max_length=63, help_text=NAME_HELP, widget=UnfoldAdminTextInputWidget())


def _title(what: str) -> forms.CharField:
    return forms.CharField(
        max_length=200, required=False, help_text=what, widget=UnfoldAdminTextInputWidget()
    )


class MemberForm(forms.Form):
    name = _name()
    title = _title("Full name of the organisation.")


class TenantForm(forms.Form):
    name = _name()
    member = forms.ModelChoiceField(
        Member.objects.all(),
        to_field_name="name",
        help_text="The organisation it belongs to.",
        widget=UnfoldAdminSelectWidget(),
    )


class SiteForm(forms.Form):
    name = _name()
    member = forms.ModelChoiceField(
        Member.objects.all(),
        to_field_name="name",
        help_text="Who owns the datacenter and earns what it sells.",
        widget=UnfoldAdminSelectWidget(),
    )
    venue = forms.ModelChoiceField(
        Venue.objects.all(),
        to_field_name="name",
        empty_label=None,
        help_text="The market it sells in; it cannot be changed later.",
        widget=UnfoldAdminSelectWidget(),
    )


class ClassForm(forms.Form):
    name = _name()
    title = _title("Model family, batch size, precision: what makes its speed.")
    owner = forms.ModelChoiceField(
        Member.objects.all(),
        to_field_name="name",
        required=False,
        empty_label="the federation",
        widget=UnfoldAdminSelectWidget(),
    )


class DepositForm(forms.Form):
    """`key` is made with the page: the same form sent twice is one deposit."""

    venue = forms.ModelChoiceField(
        Venue.objects.all(),
        to_field_name="name",
        empty_label=None,
        widget=UnfoldAdminSelectWidget(),
    )
    amount = forms.DecimalField(
        max_digits=16,
        decimal_places=6,
        min_value=Decimal("0.000001"),
        max_value=MOST,
        label="Amount (credits)",
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any"}),
    )
    key = forms.UUIDField(widget=forms.HiddenInput())

    @classmethod
    def fresh(cls) -> DepositForm:
        return cls(initial={"key": uuid.uuid4()})


class TokenForm(forms.Form):
    days = forms.IntegerField(
        min_value=1,
        max_value=366,
        initial=90,
        label="Valid for (days)",
        widget=UnfoldAdminIntegerFieldWidget(),
    )


class ReasonForm(forms.Form):
    """Why an operator does it: the reason stands in the object's story."""

    reason = forms.CharField(
        max_length=300,
        help_text="Stands in the site's story.",
        widget=UnfoldAdminTextInputWidget(),
    )


class RevokeForm(ReasonForm):
    """Taking credentials back asks for the site's name, so that nobody does it by a slip."""

    confirm = forms.CharField(
        label="The site's name, to confirm", widget=UnfoldAdminTextInputWidget()
    )

    def __init__(self, *args: Any, site_name: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.site_name = site_name

    def clean_confirm(self) -> str:
        typed: str = self.cleaned_data["confirm"]
        if typed != self.site_name:
            raise forms.ValidationError(f"Type {self.site_name} to confirm.")
        return typed
