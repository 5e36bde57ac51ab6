"""The operators' console: every page, empty and in mid-life, and who may see it."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.staticfiles import finders
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from economics.certificate import verify
from federation.models import EntryGroup, Job, Round, Tenant, User, Venue
from federation.services import ledger
from tests.broker.console_world import Console, filled, many_jobs, operator
from tests.support import world

pytestmark = pytest.mark.django_db

LISTS = {
    "console-overview": "First steps",
    "console-rounds": "No round fits",
    "console-jobs": "No jobs yet",
    "console-sites": "No offers yet. Enrol a site",
    "console-ledger": "No purse is open yet",
    "console-members": "No members yet",
    "console-audit": "No act fits",
}
FORMS = ("member", "tenant", "site", "class")


@pytest.fixture
def olga(client: Client) -> Client:
    client.force_login(operator())
    return client


def pages(c: Console) -> dict[str, str]:
    """Every address of the console in a federation in mid-life -> a sentence it must show."""
    group = EntryGroup.objects.filter(kind="settle")[0]
    purse = c.tenant.accounts.all()[0]
    at = reverse
    return {
        at("console-overview"): "Current round",
        at("console-rounds"): "A check of the clearing failed.",
        at("console-round", args=[c.cleared.pk]): "python -m economics verify main-1-book.json",
        at("console-round", args=[c.void.pk]): "A check of the clearing failed.",
        at("console-jobs"): "resnet-b",
        at("console-job", args=[c.running.pk]): "step 59 loss",
        at("console-job", args=[c.waiting.pk]): "priced_out",
        at("console-job", args=[c.done.pk]): "The command ended with exit code 0.",
        at("console-lease", args=[c.lease.pk]): "Reports on record",
        at("console-sites"): "slower than declared",
        at("console-site", args=[c.site.name]): "Speeds, declared and measured",
        at("console-site", args=[c.silent.name]): "Its agent has not synced yet",
        at("console-offer", args=[c.offer.pk]): "Speeds as stated",
        at("console-ledger"): "sums to zero",
        at("console-account", args=[purse.pk]): "Entries",
        at("console-group", args=[group.pk]): "Entries, which sum to zero",
        at("console-statement", args=["alder"]): "Earned by its sites",
        at("console-members"): "vision-team",
        at("console-member", args=["alder"]): "alder-1",
        at("console-tenant", args=["vision-team"]): "API tokens",
        at("console-class", args=["cnn"]): "Measured speeds",
        at("console-audit"): "submit",
        **{at(f"console-{kind}-new"): "Register" for kind in FORMS},
    }


@pytest.mark.parametrize("name", LISTS)
def test_an_empty_page_says_what_to_do_next(olga: Client, name: str) -> None:
    answer = olga.get(reverse(name))
    assert answer.status_code == 200
    assert LISTS[name] in answer.content.decode()


def test_every_page_of_a_federation_in_mid_life(olga: Client) -> None:
    for address, sentence in pages(filled()).items():
        answer = olga.get(address)
        assert answer.status_code == 200, address
        assert sentence in answer.content.decode(), address


def test_no_page_names_another_host(olga: Client) -> None:
    known = {"testserver", "www.w3.org"}
    for address in pages(filled()):
        text = olga.get(address).content.decode()
        assert set(re.findall(r"https?://([^/\"'\s<>:]+)", text)) <= known, address
        assert not re.search(r"(?:src|href)=[\"']//", text), address


def test_our_scripts_are_files_and_no_page_of_ours_has_inline_ones(olga: Client) -> None:
    for name in ("console/console.js", "console/console.css", "plotly/plotly.min.js"):
        assert finders.find(name), name
    page = olga.get(reverse("console-round", args=[filled().cleared.pk])).content.decode()
    inline = re.findall(r"<script(?![^>]*\bsrc=)([^>]*)>", page)
    assert all('type="application/json"' in tag for tag in inline)
    assert not re.search(r"\son(?:click|load|change)=", page)


def test_the_anonymous_are_sent_to_the_login(client: Client) -> None:
    for address in pages(filled()):
        answer = client.get(address)
        assert answer.status_code == 302, address
        assert answer["Location"].startswith("/admin/login/?next="), address


def test_a_live_fragment_sends_the_whole_page_to_the_login(client: Client) -> None:
    answer = client.get(reverse("console-jobs"), headers={"HX-Request": "true"})
    assert answer["HX-Redirect"] == "/admin/login/"


def test_a_tenants_user_is_refused(client: Client) -> None:
    world_ = filled()
    user = User.objects.create_user("tina", password="a long pass phrase", tenant=world_.tenant)
    client.force_login(user)
    for address in pages(world_):
        assert client.get(address).status_code == 403, address
    deposit = reverse("console-tenant-deposit", args=["vision-team"])
    assert client.post(deposit).status_code == 403


@pytest.mark.parametrize("name", ["console-overview", "console-rounds", "console-jobs"])
def test_a_fragment_is_the_page_without_its_shell(olga: Client, name: str) -> None:
    filled()
    answer = olga.get(reverse(name), headers={"HX-Request": "true"})
    text = answer.content.decode()
    assert "<html" not in text
    assert "Round 4" in text or "<table" in text
    assert "HX-Request" in answer["Vary"]


def test_the_dot_says_whether_the_broker_lives(
    olga: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dot() -> str:
        return olga.get(reverse("console-pulse")).content.decode()

    assert "stalled" in dot()
    assert "No sign of life from the ticks yet." in dot()
    monkeypatch.setattr("broker.console.views.overview.timezone.now", lambda: world.later(5))
    world.the_gateway_is_up(world.later(4))
    assert "live" in dot()
    world.a_venue(paused=True)
    assert "Rounds are paused in main." in dot()
    monkeypatch.setattr("broker.console.views.overview.timezone.now", lambda: world.later(500))
    assert "No sign of life from the ticks since" in dot()


@pytest.mark.parametrize("name", ["console-jobs", "console-ledger", "console-rounds"])
def test_more_rows_are_not_more_queries(olga: Client, name: str) -> None:
    few = _queries(olga, name, rows=5)
    many = _queries(olga, name, rows=45)
    assert many == few


def _queries(olga: Client, name: str, rows: int) -> int:

    tenant = world.a_tenant(credits=0)
    world.a_tenant(credits=10)
    venue = world.a_venue()
    first = Job.objects.first() or world.a_job(world.a_tenant())
    many_jobs(first.tenant, rows)
    _more_rounds(venue, rows)
    _more_deposits(tenant, venue, rows)
    olga.get(reverse(name))
    with CaptureQueriesContext(connection) as seen:
        assert olga.get(reverse(name)).status_code == 200
    return len(seen)


def _more_rounds(venue: Venue, count: int) -> None:

    top = Round.objects.filter(venue=venue).count()
    Round.objects.bulk_create(
        Round(
            venue=venue,
            number=top + n + 1,
            state="void",
            closes_at=world.NOW,
            created_at=world.NOW + timedelta(seconds=n),
        )
        for n in range(count)
    )


def _more_deposits(tenant: Tenant, venue: Venue, count: int) -> None:

    for n in range(count):
        ledger.deposit(
            tenant=tenant, venue=venue, amount_micro=5, key=f"k{n}", actor="test", now=world.NOW
        )


def test_jobs_are_filtered_by_the_address(olga: Client) -> None:
    c = filled()

    def names(query: str) -> str:
        text = olga.get(reverse("console-jobs") + query).content.decode()
        return " ".join(re.findall(r'class="strong" href="/console/jobs/[^>]*>([^<]+)<', text))

    assert names("?state=ended") == "resnet-a"
    assert "resnet-a" not in names("?state=live")
    assert names("?q=cheap") == "lm-cheap"
    assert names(f"?q={str(c.done.pk)[:8]}") == "resnet-a"
    assert "resnet" not in names("?class=lm")
    assert "resnet" not in names("?tenant=nlp-team")
    assert names("?site=clover-lab") == ""
    assert c.running.name in names(f"?site={c.lease.site.name}")


def test_a_list_turns_its_pages_and_keeps_its_filters(olga: Client) -> None:
    tenant = world.a_tenant("big")
    many_jobs(tenant, 120)
    text = olga.get(reverse("console-jobs") + "?tenant=big&page=2").content.decode()
    assert "page 2 of 3" in text
    assert 'href="?tenant=big&amp;page=3"' in text
    assert olga.get(reverse("console-jobs") + "?page=no").status_code == 200


def test_rounds_are_filtered_by_state_and_date(olga: Client) -> None:
    filled()
    address = reverse("console-rounds")
    assert "1 rounds" in olga.get(address + "?state=void").content.decode()
    assert "No round fits" in olga.get(address + "?since=2027-01-01").content.decode()
    assert "No round fits" not in olga.get(address + "?until=2026-11-21").content.decode()
    assert olga.get(address + "?since=2026-02-31").status_code == 200


def test_the_book_and_the_clearing_verify_as_downloaded(olga: Client) -> None:

    c = filled()
    book = olga.get(reverse("console-round-book", args=[c.cleared.pk]))
    clearing = olga.get(reverse("console-round-clearing", args=[c.cleared.pk]))
    assert 'filename="main-1-book.json"' in book["Content-Disposition"]
    assert all(check.holds for check in verify(book.json(), clearing.json()))
    assert olga.get(reverse("console-round-book", args=[c.void.pk])).status_code == 404


def test_a_line_of_the_audit_log_leads_to_its_object(olga: Client) -> None:
    c = filled()
    found = {
        "job": (c.running.pk, reverse("console-job", args=[c.running.pk])),
        "site": (c.site.pk, reverse("console-site", args=["alder-1"])),
        "contract": (
            c.contract.pk,
            f"{reverse('console-lease', args=[c.lease.pk])}#contract-{c.contract.pk}",
        ),
    }
    for subject, (pk, address) in found.items():
        assert olga.get(reverse("console-find", args=[subject, pk]))["Location"] == address
    for subject, key in (("job", "nonsense"), ("dragon", "1"), ("job", str(c.site.pk))):
        assert olga.get(reverse("console-find", args=[subject, key])).status_code == 404
