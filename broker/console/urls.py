"""Addresses of the operators' console. Every object has one of its own, for good."""

from __future__ import annotations

from django.urls import path

from broker.console.views import create, jobs, ledger, members, overview, rounds, sites

urlpatterns = [
    path("", overview.overview, name="console-overview"),
    path("pulse", overview.pulse, name="console-pulse"),
    path("audit/", overview.audit, name="console-audit"),
    path("find/<str:subject>/<str:subject_id>", overview.find, name="console-find"),
    path("rounds/", rounds.rounds, name="console-rounds"),
    path("rounds/<uuid:pk>/", rounds.round_page, name="console-round"),
    path(
        "rounds/<uuid:pk>/book.json", rounds.document, {"what": "book"}, name="console-round-book"
    ),
    path(
        "rounds/<uuid:pk>/clearing.json",
        rounds.document,
        {"what": "clearing"},
        name="console-round-clearing",
    ),
    path("jobs/", jobs.jobs, name="console-jobs"),
    path("jobs/<uuid:pk>/", jobs.job_page, name="console-job"),
    path("leases/<uuid:pk>/", jobs.lease_page, name="console-lease"),
    path("sites/", sites.sites, name="console-sites"),
    path("sites/<str:name>/", sites.site_page, name="console-site"),
    path("sites/<str:name>/state", sites.site_state, name="console-site-state"),
    path("sites/<str:name>/join-token", sites.site_join_token, name="console-site-join-token"),
    path("sites/<str:name>/revoke", sites.site_revoke, name="console-site-revoke"),
    path("offers/<uuid:pk>/", sites.offer_page, name="console-offer"),
    path("ledger/", ledger.ledger, name="console-ledger"),
    path("ledger/accounts/<uuid:pk>/", ledger.account_page, name="console-account"),
    path("ledger/groups/<uuid:pk>/", ledger.group_page, name="console-group"),
    path("statements/<str:name>/", ledger.statement_page, name="console-statement"),
    path("statements/<str:name>/csv", ledger.statement_csv, name="console-statement-csv"),
    path("members/", members.members, name="console-members"),
    path("members/<str:name>/", members.member_page, name="console-member"),
    path("tenants/<str:name>/", members.tenant_page, name="console-tenant"),
    path("tenants/<str:name>/deposit", members.tenant_deposit, name="console-tenant-deposit"),
    path("tenants/<str:name>/token", members.tenant_token, name="console-tenant-token"),
    path("classes/<str:name>/", members.class_page, name="console-class"),
    *(
        path(f"create/{kind}", create.create, {"kind": kind}, name=f"console-{kind}-new")
        for kind in create.KINDS
    ),
]
