"""Quotes: what they pin, when they expire, and which job may cite them."""

from __future__ import annotations

from decimal import Decimal
from uuid import uuid4

import pytest

from federation.errors import BadInput, NotFound, Refused
from federation.models import Job, Site, Study
from federation.selectors.studies import quote_shown
from federation.services import rounds
from federation.services.jobs import JobDraft
from federation.services.planning import plan_asked
from federation.services.quotes import EXPIRES_ROUNDS
from tests.federation.quote_scene import (
    ROUND_S,
    WISH,
    a_market,
    answer,
    ask,
    cite,
    opened,
    quoted,
)
from tests.support.world import (
    a_class,
    a_job,
    a_round,
    a_site,
    a_tenant,
    a_venue,
    an_offer,
    later,
    live_lease,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def market(db):
    return a_market()


def test_a_quote_pins_the_offers_that_the_job_could_use_and_expires(market):
    ann, _ = market
    a_job(ann, now=later(22))
    a_site("south", gpus=8, reserve="20", speeds={"cnn": 500.0})  # after the round: not pinned
    a_round(later(31))
    study = quoted(ann, 35, sites_deny=["elsewhere"])
    shown = quote_shown(study)
    pins = {(pin["site"], pin["version"], pin["offer"]) for pin in shown["offers"]}
    current = {(s.name, o.version, str(o.pk)) for s in Site.objects.all() for o in s.offers.all()}
    assert pins == current
    assert shown["expires_at"] == later(35 + EXPIRES_ROUNDS * ROUND_S)
    assert shown["round"] == 2
    near = quote_shown(quoted(ann, 35, sites_allow=["south"]))
    assert [pin["site"] for pin in near["offers"]] == ["south"]


def test_a_class_that_a_site_cannot_run_pins_no_offer_of_it(market):
    ann, _ = market
    a_job(ann, now=later(22))
    a_site("south", gpus=8, speeds={"lm": 5.0})
    a_round(later(31))
    assert [pin["site"] for pin in quote_shown(quoted(ann, 35))["offers"]] == ["north"]


def test_the_same_job_asked_later_is_a_new_quote_and_computed_once(market):
    ann, _ = market
    first = ask(ann, 25)
    assert ask(ann, 26).pk == first.pk  # awaited
    answer(first, 27)
    again = ask(ann, 28)
    assert again.pk != first.pk
    assert (again.state, bytes(again.result)) == ("done", bytes(first.result))
    assert quote_shown(again)["expires_at"] == later(28 + EXPIRES_ROUNDS * ROUND_S)
    other = ask(ann, 29, value=Decimal("901"))
    assert other.state == "pending"
    late = ask(ann, 29 + EXPIRES_ROUNDS * ROUND_S + 1, value=Decimal("901"))
    assert late.pk != other.pk  # nobody answered in time: it could not be cited any more


# --- what is refused --------------------------------------------------------------------------


def refusal(ann, study, at=26, **wish):
    before = Job.objects.count()
    with pytest.raises(Refused) as refused:
        cite(ann, study, at, **wish)
    assert Job.objects.count() == before
    assert "`quote`" in refused.value.why
    return refused.value


def test_a_quote_of_another_tenant_is_as_if_it_did_not_exist(market):
    ann, _ = market
    theirs = quoted(a_tenant("bob"), 25)
    said = []
    for quote in (theirs, uuid4()):
        with pytest.raises(BadInput) as refused:
            cite(ann, quote, 26)
        [problem] = refused.value.problems
        assert (problem.path, problem.code) == ("quote", "unknown_quote")
        said.append(problem.why)
    assert said[0] == said[1]


def test_another_study_is_no_quote(market):
    ann, _ = market
    study = quoted(ann, 25)
    Study.objects.filter(pk=study.pk).update(kind=Study.Kind.CONTRIBUTION)
    with pytest.raises(BadInput):
        cite(ann, study, 26)


def test_a_quote_must_be_answered_and_place_something(market):
    ann, _ = market
    assert refusal(ann, ask(ann, 25)).code == "quote_not_answered"
    failed = ask(ann, 25, gpus=[1])
    Study.objects.filter(pk=failed.pk).update(state="failed", code="solver_died", why="It died.")
    refused = refusal(ann, failed, gpus=[1])
    assert refused.code == "quote_not_answered"
    assert "It died." in refused.why
    nowhere = quoted(ann, 25, gpus=[8])
    refused = refusal(ann, nowhere, gpus=[8])
    assert refused.code == "quote_not_placed"
    assert "(no_feasible_pool)" in refused.why or "(no_capacity)" in refused.why


def test_a_gang_beyond_its_budget_is_told_of_gpus_and_max_cost_not_of_its_bid(market):
    ann, _ = market
    beyond = quoted(ann, 25, max_cost=Decimal("0.01"))
    reason = quote_shown(beyond)["answer"]["reason"]
    assert reason["message"].endswith("To run, take fewer GPUs or a higher max_cost.")
    refused = refusal(ann, beyond, max_cost=Decimal("0.01"))
    assert refused.why.endswith("; take fewer GPUs or a higher max_cost.")
    assert "higher value" not in refused.why
    low = quoted(ann, 25, value=Decimal("0.01"))
    assert "To run" not in quote_shown(low)["answer"]["reason"]["message"]
    assert "higher value" in refusal(ann, low, value=Decimal("0.01")).why


@pytest.mark.parametrize("preemptible", [True, False])
@pytest.mark.parametrize("samples", [12_347, 20_000, 20_001])
def test_what_a_budget_pays_for_exactly_is_not_lost_to_the_last_digit(market, samples, preemptible):
    ann, _ = market
    wish = {"samples": samples, "preemptible": preemptible}
    told = quote_shown(quoted(ann, 25, **wish))["answer"]
    assert told["runs"], told
    job = a_job(ann, gpus=[2], value="900", max_cost="1000", now=later(26), **wish)
    a_round(later(31))
    assert live_lease(job).pool.name == "gpu"


def test_a_round_past_its_retention_is_not_called_a_round_that_never_was(market):
    ann, _ = market
    assert rounds.snapshots_forget(now=later(86_400 * 4000)) == 1
    with pytest.raises(NotFound) as caught:
        ask(ann, 86_400 * 4000)
    assert caught.value.code == "round_forgotten"
    assert "past their retention" in caught.value.why


def test_an_expired_quote_is_refused_and_still_read(market):
    ann, _ = market
    study = quoted(ann, 25)
    over = 25 + EXPIRES_ROUNDS * ROUND_S
    refused = refusal(ann, study, over)
    assert refused.code == "quote_expired"
    assert later(over).strftime("%H:%M:%SZ") in refused.why
    assert quote_shown(study)["answer"]["runs"]
    assert cite(ann, study, over - 0.001).quoted["id"] == str(study.pk)


def test_a_stale_offer_is_named_with_both_versions(market):
    ann, agent = market
    study = quoted(ann, 25)
    an_offer(agent.site, gpus=4, reserve="12", now=later(26))
    refused = refusal(ann, study, 27)
    assert refused.code == "quote_stale"
    assert "north offers version 2, the quote pins version 1" in refused.why
    a_job(ann, now=later(28))  # a round without a bid is not published
    a_round(later(31))
    assert cite(ann, quoted(ann, 32), 33).quoted["offers"][0]["version"] == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gpus", [1]),
        ("samples", 999_999),
        ("value", Decimal("900.000001")),
        ("max_cost", Decimal("999")),
        ("deadline", later(90_000)),
        ("preemptible", False),
        ("gpu_kinds", ["A100"]),
        ("sites_allow", ["north"]),
        ("sites_deny", ["south"]),
        ("pools", ["north.gpu"]),
    ],
)
def test_a_job_that_differs_is_refused_field_by_field(market, field, value):
    ann, _ = market
    study = quoted(ann, 25)
    with pytest.raises(BadInput) as refused:
        cite(ann, study, 26, **{field: value})
    [problem] = refused.value.problems
    assert (problem.path, problem.code) == (field, "quote_differs")
    with pytest.raises(BadInput) as both:
        cite(ann, study, 26, **{field: value}, job_class=a_class("lm").name)
    assert {p.path for p in both.value.problems} == {field, "job_class"}


def test_what_no_round_looks_at_may_differ(market):
    ann, _ = market
    job = cite(ann, quoted(ann, 25), 26, name="other", command="true", env={"A": "b"})
    assert job.quote is not None


def test_a_repeat_with_its_key_is_the_first_job_even_when_the_quote_has_expired(market):
    ann, _ = market
    study = quoted(ann, 25)
    first = cite(ann, study, 26, key="k")
    assert cite(ann, study, 10_000, key="k").pk == first.pk


# --- a model instead of sizes -----------------------------------------------------------------

#: a small transformer: 0.35 milliard parameters
MODEL = {
    "params": 350e6,
    "layers": 24,
    "hidden": 1024,
    "heads": 16,
    "seq": 512,
    "vocab": 50_000,
    "global_batch": 64,
}


def test_a_described_model_is_planned_before_it_is_quoted(market):
    ann, _ = market
    study = quoted(ann, 25, gpus=(), model=MODEL)
    shown = quote_shown(study)
    [placed] = shown["answer"]["placed"]
    assert shown["plans"]["gpus"] == shown["gpus"]
    assert placed["gpus"] in shown["gpus"]
    plan = placed["plan"]
    assert plan["gpus"] == plan["tensor"] * plan["pipeline"] * plan["data"] == placed["gpus"]
    job = cite(ann, study, 26, gpus=(), model=MODEL)
    assert (job.gpus, job.quoted["gpus"]) == (shown["gpus"], placed["gpus"])
    with pytest.raises(BadInput) as refused:
        cite(ann, study, 26, gpus=(), model={**MODEL, "seq": 256})
    assert [problem.path for problem in refused.value.problems] == ["model"]
    contract = opened(job, 31)
    assert (str(contract.lease.pool), contract.gpus) == (placed["pool"], placed["gpus"])


def test_a_job_that_cites_a_quote_keeps_the_sizes_that_were_quoted(market):
    """Fewer of them would meet the deadline by the time of the submission."""
    ann, _ = market
    alone = plan_asked(
        draft=JobDraft(**{**WISH, "gpus": (), "model": MODEL}), venue=a_venue(), now=later(25)
    )
    slowest = max(row["time_s"] for row in alone.document["front"])
    wish = {"gpus": (), "model": MODEL, "deadline": later(25 + slowest + 1)}
    study = quoted(ann, 25, **wish)
    shown = quote_shown(study)
    assert len(shown["gpus"]) > 1
    again = plan_asked(draft=JobDraft(**{**WISH, **wish}), venue=a_venue(), now=later(30))
    assert list(again.gpus) != shown["gpus"], "planned again it would ask for others"
    job = cite(ann, study, 30, **wish)
    assert (job.gpus, job.pools) == (shown["gpus"], shown["plans"]["pools"])


def test_a_question_without_sizes_and_model_names_the_field(market):
    ann, _ = market
    with pytest.raises(BadInput) as refused:
        ask(ann, 25, gpus=())
    assert [problem.path for problem in refused.value.problems] == ["gpus"]
