"""Addresses of the tenants' API."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from broker.api import (
    alarms,
    contracts,
    epochs,
    explanations,
    inquiries,
    ledger,
    plans,
    profiles,
    rules,
    samples,
    studies,
    views,
)

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("alarms", alarms.AlarmViewSet, basename="alarm")
router.register("contracts", contracts.ContractViewSet, basename="contract")
router.register("disputes", contracts.DisputeViewSet, basename="dispute")
router.register("epochs", epochs.EpochViewSet, basename="epoch")
router.register("inquiries", inquiries.InquiryViewSet, basename="inquiry")
router.register("jobs", views.JobViewSet, basename="job")
router.register("classes", views.ClassViewSet, basename="class")
router.register("quotes", studies.QuoteViewSet, basename="quote")
router.register("rounds", views.RoundViewSet, basename="round")

urlpatterns = [
    path("me", views.Me.as_view(), name="me"),
    path("ledger", ledger.LedgerView.as_view(), name="ledger"),
    path("ledger/export", ledger.LedgerExport.as_view(), name="ledger-export"),
    path("ledger/reversals", ledger.Reversals.as_view(), name="reversals"),
    path("deposits", ledger.Deposits.as_view(), name="deposits"),
    path("members/<str:name>/credit", ledger.MemberCredit.as_view(), name="member-credit"),
    path("members/<str:name>/statement", ledger.Statements.as_view(), name="statement"),
    path("withdrawals", ledger.Withdrawals.as_view(), name="withdrawals"),
    path("rules", rules.RulesView.as_view(), name="rules"),
    path("rules/consent", rules.RulesConsent.as_view(), name="rules-consent"),
    path("rules/preview", rules.RulesPreview.as_view(), name="rules-preview"),
    path("plans", plans.Plans.as_view(), name="plans"),
    path("classes/<str:name>/profile", profiles.Profile.as_view(), name="class-profile"),
    path("samples/quarantined", samples.Quarantined.as_view(), name="samples-quarantined"),
    path("models", samples.Models.as_view(), name="models"),
    path("offers", views.Offers.as_view(), name="offers"),
    path(
        "rounds/<int:number>/contributions",
        studies.Contributions.as_view(),
        name="contributions",
    ),
    path("rounds/<int:number>/curves", explanations.Curves.as_view(), name="curves"),
    path("jobs/<uuid:pk>/explanation", explanations.Explanation.as_view(), name="explanation"),
    path("", include(router.urls)),
]
