"""Studies: asked once, claimed once, answered; handed out again when something is lost."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from federation.models import Round, Snapshot, Study
from federation.selectors.frozen import SOLVE_SHARE, dues, frozen, studied
from federation.services import parts, studies
from federation.snapshot import pack, unpack
from tests.support.world import a_job, a_round, a_site, a_tenant, a_venue, later

pytestmark = pytest.mark.django_db
SOON = 30.0


@pytest.fixture
def round(db) -> Round:
    """A published round in which ann and bob have bid."""
    a_site("north", gpus=2)
    for name in ("ann", "bob"):
        a_job(a_tenant(name), name=f"{name}-job")
    a_round(later(20))
    return Round.objects.get(published_at__isnull=False)


def ask(round, *, tenant="ann", kind=Study.Kind.CONTRIBUTION, now=SOON) -> Study:
    question = studies.Question({"tenant": tenant})
    [study] = studies.studies_request(
        round=round, kind=kind, questions=[question], actor="test", now=later(now)
    )
    return study


def claim(study, now=SOON, **limits) -> studies.StudyClaim | None:
    return studies.study_claim(study_id=study.pk, token=uuid.uuid4(), now=later(now), **limits)


def test_the_same_question_is_one_study_and_another_is_another(round):
    assert ask(round) == ask(round)
    assert ask(round, tenant="bob") != ask(round)
    assert ask(round, kind=Study.Kind.QUOTE) != ask(round)
    assert Study.objects.count() == 3


def test_a_study_is_claimed_once_and_answered_once(round):
    study = ask(round)
    first = claim(study)
    assert first is not None
    assert first.limit_s == SOLVE_SHARE * a_venue().solve_patience_s
    assert claim(study) is None
    assert studies.study_answer(claim=first, result=pack({"x": 1}), now=later(SOON)).kept
    assert not studies.study_answer(claim=first, result=pack({"x": 2}), now=later(SOON)).kept
    study.refresh_from_db()
    assert (study.state, unpack(study.result)) == ("done", {"x": 1})
    assert claim(study) is None


def test_a_lost_message_costs_time_only(round):
    study = ask(round)
    assert studies.studies_due(now=later(SOON + 1)) == []
    late = SOON + studies.AGAIN.total_seconds() + 1
    assert studies.studies_due(now=later(late)) == [study.pk]
    assert studies.studies_due(now=later(late)) == []  # handed out just now
    assert claim(study, late) is not None


def test_the_study_of_a_dead_worker_is_taken_over_and_its_late_answer_changes_nothing(round):
    study = ask(round)
    dead = claim(study)
    after = SOON + a_venue().solve_patience_s + 1
    assert studies.studies_due(now=later(after)) == [study.pk]
    heir = claim(study, after)
    assert not studies.study_answer(claim=dead, result=pack({"x": 1}), now=later(after)).kept
    assert not studies.study_fail(claim=dead, code="c", why="w", now=later(after)).kept
    assert studies.study_answer(claim=heir, result=pack({"x": 2}), now=later(after)).kept
    study.refresh_from_db()
    assert unpack(study.result) == {"x": 2}


def test_a_study_that_no_worker_brings_home_has_failed(round):
    study, now = ask(round), SOON
    for _ in range(studies.MAX_CLAIMS):
        assert studies.study_give_back(claim=claim(study, now), now=later(now)).next == [study.pk]
        now += 1
    assert claim(study, now) is None
    study.refresh_from_db()
    assert (study.state, study.code) == ("failed", "solver_lost")
    assert ask(round).state == "failed"  # the answer to the same question is that there is none


def test_a_report_that_has_failed_is_tried_anew_when_somebody_asks_again(round):
    def report():
        return studies.report_request(round=round, share=0.01, actor="op", now=later(SOON))

    first = report()
    studies.study_fail(claim=claim(first), code="solver_timed_out", why="w", now=later(SOON))
    again = report()
    assert (again.pk, again.state, again.code, again.claims) == (first.pk, "pending", "", 0)
    assert claim(again) is not None


def test_only_so_many_run_at_once_and_the_next_is_named(round):
    one, two = ask(round), ask(round, tenant="bob", now=SOON + 1)
    held = claim(one, at_once=1)
    assert claim(two, at_once=1) is None
    answered = studies.study_answer(claim=held, result=pack({}), now=later(SOON))
    assert answered.next == [two.pk]
    assert claim(two, at_once=1) is not None


PLAN = {"standings": [{"tenant": "ann"}, {"tenant": "bob"}], "reclear": ["ann", "bob"]}


def planned(round) -> tuple[Study, list[Study]]:
    report = studies.report_request(round=round, share=0.01, actor="op", now=later(SOON))
    answered = studies.report_plan(claim=claim(report), plan=PLAN, now=later(SOON))
    assert answered.kept
    return report, [Study.objects.get(pk=pk) for pk in answered.next]


def test_a_report_is_complete_with_its_last_contribution(round):
    report, [ann, bob] = planned(round)
    studies.study_answer(claim=claim(ann), result=pack({"tenant": "ann"}), now=later(SOON))
    report.refresh_from_db()
    assert report.state == "running"
    studies.study_fail(claim=claim(bob), code="solver_timed_out", why="w", now=later(SOON))
    report.refresh_from_db()
    assert report.state == "done"
    assert unpack(report.result) == {
        **PLAN,
        "contributions": [
            {"tenant": "ann"},
            {"tenant": "bob", "failed": "solver_timed_out", "why": "w"},
        ],
    }


def test_a_report_whose_gathering_was_lost_is_completed_by_the_tick(round):
    report, contributions = planned(round)
    Study.objects.filter(pk__in=[c.pk for c in contributions]).update(
        state=Study.State.DONE, result=pack({})
    )
    assert studies.reports_gather(now=later(SOON)) == [report.pk]
    assert studies.reports_gather(now=later(SOON)) == []


def test_a_report_whose_contributions_were_never_written_asks_for_them_again(round):
    report, contributions = planned(round)
    Study.objects.filter(kind=Study.Kind.CONTRIBUTION).delete()
    assert studies.reports_gather(now=later(SOON)) == []
    assert Study.objects.filter(kind=Study.Kind.CONTRIBUTION).count() == len(contributions)
    report.refresh_from_db()
    assert report.state == "running"


def test_a_planned_report_is_not_due_by_itself_and_one_without_reclears_is_done(round):
    report, _ = planned(round)
    Study.objects.exclude(pk=report.pk).delete()
    assert studies.studies_due(now=later(10_000)) == []
    small = studies.report_request(round=round, share=0.5, actor="op", now=later(SOON))
    plan = {"standings": [], "reclear": []}
    assert studies.report_plan(claim=claim(small), plan=plan, now=later(SOON)).next == []
    small.refresh_from_db()
    assert small.state == "done"


def test_parts_are_taken_by_whoever_is_free_and_taken_back_from_the_dead(round):
    token, now = uuid.uuid4(), later(SOON)
    ids = parts.parts_offer(
        round_id=round.pk,
        name="square",
        bodies=[b"0", b"1", b"2"],
        files=["f0", "f1", "f2"],
        now=now,
    )
    other = claim(Study.objects.get(pk=ids[1]))
    assert (other.kind, other.payload, other.parameters["name"]) == ("part", b"1", "square")
    assert other.parameters["files"] == ["f1"]

    def take(moment=now):
        return parts.part_take(parts=ids, token=token, limit_s=5, now=moment)

    assert [take(), take(), take()] == [ids[0], ids[2], None]
    for part, body in ((ids[0], b"0"), (ids[2], b"4")):
        assert parts.part_put(part=part, token=token, result=body, now=now)
    assert parts.parts_results(parts=ids) is None
    late = now + timedelta(seconds=a_venue().solve_patience_s + 1)
    assert take(late) == ids[1]
    assert not studies.study_answer(claim=other, result=b"stale", now=late).kept
    assert parts.part_put(part=ids[1], token=token, result=b"1", now=late)
    assert parts.parts_results(parts=ids) == [b"0", b"1", b"4"]
    parts.parts_drop(parts=ids)
    assert not Study.objects.exists()


def test_the_same_parts_offered_twice_are_two_batches(round):
    offer = {"round_id": round.pk, "name": "square", "bodies": [b"1"], "files": []}
    first = parts.parts_offer(**offer, now=later(SOON))
    second = parts.parts_offer(**offer, now=later(SOON))
    assert first != second
    assert studies.studies_due(now=later(10_000)) == []  # who waits for them takes them back


def test_a_file_that_parts_share_is_on_record_once_until_its_round_is_decided(round):
    for body in (b"content", b"the same name is the same content"):
        parts.file_put(round_id=round.pk, name="digest.npz", body=body, now=later(SOON))
    assert parts.file_read(round_id=round.pk, name="digest.npz") == b"content"
    assert studies.studies_due(now=later(10_000)) == []
    parts.files_drop(round_id=round.pk, names=["digest.npz"])
    with pytest.raises(Study.DoesNotExist):
        parts.file_read(round_id=round.pk, name="digest.npz")


def test_what_is_old_is_forgotten_and_reports_are_kept(round):
    ask(round, kind=Study.Kind.QUOTE)
    ask(round)
    parts.parts_offer(round_id=round.pk, name="p", bodies=[b""], files=[], now=later(SOON))
    assert studies.studies_forget(now=later(SOON + 10)) == 0
    assert studies.studies_forget(now=later(100 * 86400)) == 2
    assert [study.kind for study in Study.objects.all()] == ["contribution"]


def test_what_a_solver_needs_of_a_round_is_read_as_it_is_stored(round):
    found = frozen(round.pk)
    assert unpack(found.book)["format"] == "hanse.book/1"
    assert unpack(found.clearing)["format"] == "hanse.clearing/1"
    assert found.venue == "main"
    [due] = dues([uuid.uuid4(), round.pk])
    assert (due.round_id, due.venue) == (round.pk, "main")
    assert studied(a_venue()) == round
    Snapshot.objects.update(body=None)
    assert frozen(round.pk).book is None
    assert studied(a_venue()) is None
