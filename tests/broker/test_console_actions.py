"""What an operator may do: each act calls a service, once, and stands in a story."""

from __future__ import annotations

import csv
import io
import re

import pytest
from django.test import Client
from django.urls import reverse

from federation.models import (
    AgentCredential,
    EntryGroup,
    Event,
    JobClass,
    JoinToken,
    Member,
    Site,
    Tenant,
    Venue,
)
from federation.selectors.accounts import funds_micro
from federation.services.access import agent_authenticate, agent_join
from tests.broker.console_world import OPERATOR, filled, operator
from tests.support import world

pytestmark = pytest.mark.django_db
ME = f"user:{OPERATOR}"


@pytest.fixture
def olga(client: Client) -> Client:
    client.force_login(operator())
    return client


def told(subject: str, event: str) -> Event:
    return Event.objects.get(subject=subject, event=event, actor=ME)


def test_what_is_new_is_registered_by_the_services(olga: Client) -> None:
    world.a_venue()
    forms = {
        "member": {"name": "elm", "title": "Elm Institute"},
        "tenant": {"name": "elm-team", "member": "elm"},
        "site": {"name": "elm-1", "member": "elm", "venue": "main"},
        "class": {"name": "vit-b64", "title": "", "owner": ""},
    }
    for kind, body in forms.items():
        answer = olga.post(reverse(f"console-{kind}-new"), body)
        assert answer.status_code == 302, answer.content.decode()
        assert told(kind, "create")
        assert olga.get(answer["Location"]).status_code == 200
    assert Tenant.objects.get(name="elm-team").member == Member.objects.get(name="elm")
    assert Site.objects.get(name="elm-1").venue == Venue.objects.get()
    assert JobClass.objects.get(name="vit-b64").owner is None


@pytest.mark.parametrize(
    ("name", "words"),
    [("bad name!", "letters, digits"), ("birch", "already a member called birch")],
)
def test_a_refusal_stands_in_the_form(olga: Client, name: str, words: str) -> None:
    world.a_member("birch")
    answer = olga.post(reverse("console-member-new"), {"name": name})
    assert answer.status_code == 200
    assert words in answer.content.decode()
    assert Member.objects.count() == 1


def test_a_deposit_sent_twice_is_posted_once(olga: Client) -> None:
    tenant, venue = world.a_tenant("t", credits=0), world.a_venue()
    page = olga.get(reverse("console-tenant", args=["t"])).content.decode()
    [key] = re.findall(r'name="key" value="([^"]+)"', page)
    body = {"venue": "main", "amount": "12.5", "key": key}
    address = reverse("console-tenant-deposit", args=["t"])
    first = olga.post(address, body, follow=True).content.decode()
    second = olga.post(address, body, follow=True).content.decode()
    assert "12.5 credits are on the account of t." in first
    assert "posted already" in second
    assert funds_micro(tenant, venue) == 12_500_000
    assert EntryGroup.objects.count() == 1
    assert told("tenant", "deposit").why == "12.500000 cash"


@pytest.mark.parametrize("amount", ["0", "-3", "1e30", "NaN", "0.0000001", "", "1,5"])
def test_a_sum_that_is_none_is_refused(olga: Client, amount: str) -> None:
    world.a_tenant("t", credits=0)
    body = {"venue": "main", "amount": amount, "key": "7f1c6d8e-6a60-4e2a-9f4e-0d8a6f3f6a11"}
    answer = olga.post(reverse("console-tenant-deposit", args=["t"]), body)
    assert answer.status_code == 200
    assert 'role="alert"' in answer.content.decode()
    assert not EntryGroup.objects.exists()


def test_an_api_token_is_shown_once(olga: Client) -> None:
    world.a_tenant("t")
    answer = olga.post(reverse("console-tenant-token", args=["t"]), {"days": "30"})
    secret = max(re.findall(r"hst_\w+", answer.content.decode()), key=len)
    assert "no-store" in answer["Cache-Control"]
    assert told("tenant", "token")
    page = olga.get(reverse("console-tenant", args=["t"])).content.decode()
    assert secret not in page
    assert secret[:8] in page


def test_draining_a_site_needs_a_reason_and_tells_it(olga: Client) -> None:
    site = world.a_site("s")
    address = reverse("console-site-state", args=["s"])
    refused = olga.post(address, {"to": "drain", "reason": " "})
    assert "This field is required" in refused.content.decode()
    olga.post(address, {"to": "drain", "reason": "new switches"})
    site.refresh_from_db()
    assert site.state == "draining"
    assert told("site", "drain").why == "new switches"
    olga.post(address, {"to": "open", "reason": "done"})
    site.refresh_from_db()
    assert site.state == "online"
    again = olga.post(address, {"to": "open", "reason": "again"}, follow=True)
    assert "a site that is online cannot open" in again.content.decode()


def test_a_join_token_is_shown_once_and_works(olga: Client) -> None:
    world.a_site("s", online=False)
    answer = olga.post(reverse("console-site-join-token", args=["s"]))
    [secret] = set(re.findall(r"hsj_[\w-]+", answer.content.decode()))
    assert "no-store" in answer["Cache-Control"]
    assert "hanse agent join http://testserver" in answer.content.decode()
    assert secret not in olga.get(reverse("console-site", args=["s"])).content.decode()
    assert told("site", "join_token")
    assert agent_join(token=secret, now=JoinToken.objects.get().created_at).site == "s"


def test_revoking_asks_for_the_sites_name(olga: Client) -> None:
    site = world.a_site("s")
    secret = world.an_agent(site)
    address = reverse("console-site-revoke", args=["s"])
    slip = olga.post(address, {"reason": "stolen laptop", "confirm": "other"})
    assert "Type s to confirm." in slip.content.decode()
    assert agent_authenticate(secret=secret, now=world.NOW)
    olga.post(address, {"reason": "stolen laptop", "confirm": "s"})
    assert not AgentCredential.objects.filter(revoked_at=None).exists()
    assert told("site", "revoke_credentials")
    assert Event.objects.filter(subject="site", actor=ME, why="stolen laptop").exists()


def test_acts_need_the_cross_site_token_and_are_posts() -> None:
    world.a_site("s")
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(operator())
    for name in ("state", "join-token", "revoke"):
        address = reverse(f"console-site-{name}", args=["s"])
        assert careful.post(address, {"reason": "x", "confirm": "s"}).status_code == 403
        assert careful.get(address).status_code == 405
    assert not JoinToken.objects.exists()


def test_a_statement_as_csv_sums_to_the_page(olga: Client) -> None:
    filled()
    address = reverse("console-statement-csv", args=["alder"])
    answer = olga.get(address)
    assert answer["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert rows
    assert {row["currency"] for row in rows} == {"cash"}
    total = sum(round(float(row["amount"]) * 1e6) for row in rows)
    page = olga.get(reverse("console-statement", args=["alder"]))
    assert total == page.context["statement"].net_micro
    later = olga.get(address, {"since": "2026-11-22"})
    assert len(later.content.decode().splitlines()) == 1
    until = olga.get(address, {"since": "2026-11-21", "until": "2026-11-21"})
    assert len(until.content.decode().splitlines()) == len(rows) + 1


def test_a_changed_rule_of_a_venue_is_told(olga: Client) -> None:
    venue = world.a_venue()
    address = reverse("admin:federation_venue_change", args=[venue.pk])
    form = olga.get(address).context["adminform"].form
    body = {key: form.initial[key] for key in form.fields} | {"round_s": "30", "paused": "on"}
    answer = olga.post(address, body)
    assert answer.status_code == 302, answer.context["errors"]
    venue.refresh_from_db()
    assert (venue.round_s, venue.paused) == (30.0, True)
    assert "round_s: 10.0 → 30.0" in told("venue", "change").why


def test_a_policy_is_chosen_with_its_sentence_and_a_bad_one_is_refused(olga: Client) -> None:
    venue = world.a_venue()
    address = reverse("admin:federation_venue_change", args=[venue.pk])
    page = olga.get(address)
    assert "served least" in page.content.decode()
    form = page.context["adminform"].form
    body = {key: form.initial[key] for key in form.fields} | {
        "policy": "allox",
        "policy_parameters": '{"alpha": 0.25}',
    }
    for wrong in ('{"alpha": 0}', '{"colour": 1}', "[1]", "{"):
        refused = olga.post(address, body | {"policy_parameters": wrong})
        assert refused.status_code == 200
        assert refused.context["errors"]
    answer = olga.post(address, body)
    assert answer.status_code == 302, answer.context["errors"]
    venue.refresh_from_db()
    assert (venue.policy, venue.policy_parameters) == ("allox", {"alpha": 0.25})
    assert "policy: surplus → allox" in told("venue", "change").why


@pytest.mark.parametrize("model", ["job", "lease", "contract", "round", "site", "account"])
def test_what_a_life_cycle_governs_can_only_be_looked_at(olga: Client, model: str) -> None:
    filled()
    many = reverse(f"admin:federation_{model}_changelist")
    page = olga.get(many)
    assert page.status_code == 200
    row = page.context["cl"].result_list[0]
    one = reverse(f"admin:federation_{model}_change", args=[row.pk])
    assert olga.get(one).status_code == 200
    assert olga.post(one, {"state": "void"}).status_code == 403
    assert olga.get(reverse(f"admin:federation_{model}_add")).status_code == 403
    delete = reverse(f"admin:federation_{model}_delete", args=[row.pk])
    assert olga.post(delete, {"post": "yes"}).status_code == 403
