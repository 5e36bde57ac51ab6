"""Studies with real connections and real commits: each is asked, claimed and answered once."""

from __future__ import annotations

import uuid

import pytest

from federation.models import Round, Study
from federation.services import parts, studies
from federation.snapshot import pack
from tests.support.together import together
from tests.support.world import a_job, a_round, a_site, a_tenant, later

pytestmark = pytest.mark.usefixtures("ledger_may_be_flushed")
MANY = 8
NOW = later(30)


@pytest.fixture
def round(ledger_may_be_flushed) -> Round:
    a_site("north", gpus=2)
    a_job(a_tenant("ann"))
    a_round(later(20))
    return Round.objects.get(published_at__isnull=False)


def ask(round, tenant="ann", kind=Study.Kind.CONTRIBUTION) -> Study:
    [study] = studies.studies_request(
        round=round,
        kind=kind,
        questions=[studies.Question({"tenant": tenant})],
        actor="test",
        now=NOW,
    )
    return study


def test_the_same_question_from_many_is_one_study(round):
    asked = together(MANY, lambda _: ask(round))
    assert len({study.pk for study in asked}) == Study.objects.count() == 1


def test_many_workers_claim_a_study_once_and_a_lost_one_is_handed_out_once(round):
    study = ask(round)

    def claim(_):
        return studies.study_claim(study_id=study.pk, token=uuid.uuid4(), now=NOW)

    assert sum(found is not None for found in together(MANY, claim)) == 1
    handed = together(MANY, lambda _: studies.studies_due(now=later(10_000)))
    assert [pk for ids in handed for pk in ids] == [study.pk]


def test_contributions_that_come_in_at_the_same_moment_complete_their_report_once(round):
    names = [f"t{n}" for n in range(MANY)]
    report = studies.report_request(round=round, share=0.0, actor="op", now=NOW)
    held = studies.study_claim(study_id=report.pk, token=uuid.uuid4(), now=NOW)
    answered = studies.report_plan(claim=held, plan={"standings": [], "reclear": names}, now=NOW)
    claims = [studies.study_claim(study_id=pk, token=uuid.uuid4(), now=NOW) for pk in answered.next]

    def answer(number):
        return studies.study_answer(
            claim=claims[number], result=pack({"tenant": names[number]}), now=NOW
        ).kept

    assert together(MANY, answer) == [True] * MANY
    studies.reports_gather(now=NOW)
    report.refresh_from_db()
    assert report.state == "done"


def test_each_part_is_taken_by_one_worker(round):
    ids = parts.parts_offer(round_id=round.pk, name="p", bodies=[b""] * MANY, files=[], now=NOW)

    def take(number):
        if number % 2:
            found = studies.study_claim(study_id=ids[number // 2], token=uuid.uuid4(), now=NOW)
            return found.study_id if found else None
        return parts.part_take(parts=ids, token=uuid.uuid4(), limit_s=60, now=NOW)

    taken = [part for part in together(MANY, take) if part is not None]
    assert len(taken) == len(set(taken)) >= MANY // 2
