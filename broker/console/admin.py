"""Stock admin for what is rare. What a life cycle or the ledger governs can only be looked at."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as StockGroupAdmin
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.models import Group
from django.db.models import Model
from django.forms import ChoiceField, ModelForm
from django.http import HttpRequest
from django.utils import timezone
from knox.models import get_token_model
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from broker.console.access import actor_of
from federation import models
from federation.policies import WORDS, policy_problems
from federation.services.story import tell


class LookOnly(ModelAdmin):
    """Nobody adds, changes or deletes these rows by hand: services do, and tell the story."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def _look_only(model: type[Model], **options: Any) -> None:
    admin.register(model)(type(f"{model.__name__}Admin", (LookOnly,), options))


_look_only(models.Member, list_display=["name", "title"], search_fields=["name", "title"])
_look_only(models.Tenant, list_display=["name", "member"], search_fields=["name"])
_look_only(models.JobClass, list_display=["name", "title", "owner"], search_fields=["name"])
_look_only(
    models.Site,
    list_display=["name", "member", "state", "last_sync_at"],
    list_filter=["state"],
    search_fields=["name"],
)
_look_only(models.Pool, list_display=["name", "site", "gpu"], list_select_related=["site"])
_look_only(
    models.Offer,
    list_display=["site", "version", "state", "created_at"],
    list_filter=["state"],
    list_select_related=["site"],
)
_look_only(
    models.Round,
    list_display=["number", "venue", "state", "closes_at", "bids", "welfare"],
    list_filter=["state"],
    list_select_related=["venue"],
    exclude=["clearing", "token"],
)
_look_only(
    models.Job,
    list_display=["name", "tenant", "job_class", "state", "created_at"],
    list_filter=["state"],
    list_select_related=["tenant", "job_class"],
    search_fields=["name"],
    exclude=["env"],  # may hold a tenant's secrets
)
_look_only(
    models.Lease,
    list_display=["job", "attempt", "site", "state", "created_at"],
    list_filter=["state"],
    list_select_related=["job", "site"],
)
_look_only(
    models.Contract,
    list_display=["lease", "sequence", "state", "payment_micro", "paid_micro"],
    list_filter=["state"],
    list_select_related=["lease"],
)
_look_only(
    models.Account,
    list_display=["kind", "currency", "tenant", "member", "balance_micro"],
    list_filter=["kind", "currency"],
    list_select_related=["tenant", "member"],
)
_look_only(
    models.EntryGroup,
    list_display=["kind", "key", "currency", "created_at"],
    list_filter=["kind"],
    search_fields=["key"],
)
_look_only(
    models.Study,
    list_display=["kind", "round", "state", "tenant", "requested_by", "created_at"],
    list_filter=["kind", "state"],
    list_select_related=["round__venue", "tenant"],
    exclude=["token", "payload", "result"],
)
_look_only(
    models.Event,
    list_display=["at", "subject", "subject_id", "event", "actor", "why"],
    list_filter=["subject"],
    search_fields=["subject_id", "actor"],
)
_look_only(
    models.QuarantinedSample,
    list_display=["lease", "seq", "code", "why", "received_at"],
    list_filter=["code"],
    list_select_related=["lease"],
)
_look_only(
    models.StoredModel,
    list_display=["pool", "job_class", "version", "samples", "waiting", "fitted_at", "why"],
    list_select_related=["pool__site", "job_class"],
    exclude=["body"],
)


class TellsItsStory(ModelAdmin):
    """Rows that an operator may edit; every change is a line in the audit log."""

    subject = ""

    def save_model(
        self, request: HttpRequest, obj: Any, form: ModelForm[Any], change: bool
    ) -> None:
        changes = [_change(form, name) for name in form.changed_data]
        super().save_model(request, obj, form, change)
        tell(
            self.subject,
            obj.pk,
            "change" if change else "create",
            now=timezone.now(),
            actor=actor_of(request),
            why="; ".join(changes),
        )


def _change(form: ModelForm[Any], name: str) -> str:
    """One changed field in words; a password's value is nobody's business."""
    if "password" in name:
        return name
    return f"{name}: {form.initial.get(name, 'unset')} → {form.cleaned_data.get(name)}"


class VenueForm(ModelForm):  # type: ignore[type-arg]
    """A venue's rules. A policy is rehearsed before it is kept: a bad one would void each round."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        policy = self.fields["policy"]
        assert isinstance(policy, ChoiceField)  # noqa: S101 - the model's field has choices
        policy.choices = [(name, f"{name}: {words}") for name, words in WORDS.items()]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "policy" in cleaned:
            parameters = cleaned.get("policy_parameters") or {}
            if not isinstance(parameters, dict):
                self.add_error("policy_parameters", 'An object is expected, such as {"alpha": 0.5}')
                return cleaned
            for problem in policy_problems(cleaned["policy"], parameters):
                self.add_error("policy_parameters", f"{problem.path}: {problem.why}")
        return cleaned


@admin.register(models.Venue)
class VenueAdmin(TellsItsStory):
    """The rules of a market. They are read when a round closes and frozen in its snapshot."""

    subject = "venue"
    form = VenueForm
    list_display = ["name", "currency", "round_s", "policy", "seller_share", "epsilon", "paused"]
    fieldsets = [
        (None, {"fields": ["name", "currency", "paused"]}),
        ("Rounds", {"fields": ["round_s", "solve_patience_s", "retention_days"]}),
        ("Policy", {"fields": ["policy", "policy_parameters"]}),
        ("Prices", {"fields": ["seller_share", "epsilon", "core_repair"]}),
        (
            "Leases",
            {"fields": ["renew_s", "fence_s", "fence_margin_s", "grace_s", "restart_s"]},
        ),
        ("Probes and settlement", {"fields": ["probe_s", "probe_pools", "settle_after_s"]}),
    ]

    def save_model(
        self, request: HttpRequest, obj: Any, form: ModelForm[Any], change: bool
    ) -> None:
        if not change:
            obj.created_at = timezone.now()
        super().save_model(request, obj, form, change)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """A venue's name and currency stand in the ledger; they cannot change later."""
        return ["name", "currency"] if obj is not None else []

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(models.User)
class UserAdmin(StockUserAdmin, TellsItsStory):  # type: ignore[type-arg]
    """People and programmes that sign in. Operators are those with staff status."""

    subject = "user"
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "is_staff", "is_superuser", "member", "tenant", "last_login"]
    list_select_related = ["member", "tenant"]
    fieldsets = [
        *(StockUserAdmin.fieldsets or ()),
        ("Federation", {"fields": ["member", "tenant"]}),
    ]

    def has_delete_permission(self, request: HttpRequest, obj: models.User | None = None) -> bool:
        """Accounts are switched off, not deleted: the audit log names them."""
        return False


admin.site.unregister(Group)
admin.site.unregister(get_token_model())  # tokens are issued on a tenant's page, by the service


@admin.register(Group)
class GroupAdmin(StockGroupAdmin, ModelAdmin):
    """Groups, in unfold's clothes."""
