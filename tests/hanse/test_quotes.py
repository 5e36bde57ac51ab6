"""`hanse quote` and `hanse submit --quote`: what is sent, printed, and exited with."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from hanse.cli import app
from hanse.client import AsyncClient, Client
from tests.hanse.stub import TOKEN, Answer, a_job, a_page, a_quote, problem
from tests.hanse.test_jobfile import GOOD, LEAST

QUOTE = a_quote()
ADDRESS = f"/api/v1/quotes/{QUOTE['id']}"
WAITS = a_quote(state="PENDING", answer=None, finished_at=None)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def logged_in(broker, monkeypatch):
    monkeypatch.setenv("HANSE_URL", broker.url)
    monkeypatch.setenv("HANSE_TOKEN", TOKEN)
    return broker


def run(*words, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


def test_a_quote_is_asked_waited_for_and_shown_in_full(file, logged_in):
    logged_in.on("POST", "/api/v1/quotes", Answer(202, WAITS))
    running = Answer(200, WAITS | {"state": "RUNNING"})
    logged_in.on("GET", ADDRESS, running, Answer(200, QUOTE))
    done = run("quote", file, "--every", "0.05")
    assert (done.exit_code, done.stderr) == (0, "")
    assert [asked.method for asked in logged_in.asked] == ["POST", "GET", "GET"]
    assert logged_in.asked[0].body["value"] == "12.0"
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["quote"] == QUOTE["id"]
    assert lines["price"] == "8.374000 credits per GPU-hour"
    assert lines["per"] == "million  7.753704 credits per million samples"
    assert lines["payment"] == "5.582667 credits for the round"
    assert lines["pool"] == "alder.a100"
    assert lines["GPUs"] == "4"
    assert lines["displaces"] == "2 of others"
    assert lines["expires"] == "2026-11-21 10:20:00Z"
    assert lines["offers"] == "alder v3"


def test_who_stops_waiting_is_told_where_the_answer_will_be(file, logged_in, monkeypatch):
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    logged_in.on("POST", "/api/v1/quotes", Answer(202, WAITS))
    monkeypatch.setattr("hanse.following.time", SimpleNamespace(sleep=interrupted))
    done = run("quote", file)
    assert done.exit_code != 0
    assert QUOTE["id"] in done.stderr


def test_as_json_it_is_the_apis_own_answer_and_several_are_a_list(tmp_path, file, logged_in):
    logged_in.on("POST", "/api/v1/quotes", Answer(202, QUOTE))
    assert json.loads(run("quote", file, "-o", "json").stdout) == QUOTE
    two = tmp_path / "two.yaml"
    two.write_text(f"{LEAST}---\n{LEAST.replace('name: j', 'name: k')}")
    assert json.loads(run("quote", two, "-o", "json").stdout) == [QUOTE, QUOTE]


def test_a_job_that_would_not_run_is_told_why_and_what_bid_would(file, logged_in):
    answer = {
        "runs": False,
        "placed": [],
        "reason": {"code": "priced_out", "message": "Its bid is below the price."},
        "would_run_at": {"pool": "alder.a100", "value": "14.500000"},
        "displaces_own": [],
        "displaces_others": 0,
    }
    logged_in.on("POST", "/api/v1/quotes", Answer(202, a_quote(answer=answer)))
    done = run("quote", file)
    assert done.exit_code == 0
    assert "runs         no" in done.stdout
    assert "Its bid is below the price. (priced_out)" in done.stdout
    assert "would run at 14.500000 credits per million samples, alder.a100" in done.stdout


def unknown_to_every_round():
    answer = {
        "runs": False,
        "placed": [],
        "reason": {"code": "no_feasible_pool", "message": "No pool has a speed."},
        "would_run_at": None,
        "displaces_own": [],
        "displaces_others": 0,
    }
    return a_quote(answer=answer)


def a_guess(**changes):
    return {
        "job_class": "resnet50-b64", "gpus": 4, "declared": None, "measured": None,
        "believed": 1150.5, "low": 700.0, "high": 1900.0, "source": "catalogue", "priced": False,
        "reports": 0, "known_at": "2026-11-21T10:00:00Z",
    } | changes  # fmt: skip


def test_a_class_that_only_a_prior_knows_names_the_guess_and_the_probe(file, logged_in):
    rows = [a_guess(), a_guess(job_class="other"), a_guess(gpus=8, priced=True)]
    offer = {"pool": "alder.a100", "affinities": rows}
    logged_in.on("POST", "/api/v1/quotes", Answer(202, unknown_to_every_round()))
    logged_in.on("GET", "/api/v1/offers", a_page(offer, {"pool": "birch.x", "affinities": []}))
    lines = run("quote", file).stdout.splitlines()
    guesses = [line for line in lines if line.startswith("guess")]
    assert guesses == [
        "guess        1,150 samples/s on 4 GPUs at alder.a100 (700-1,900, by catalogue)"
    ]
    assert "a probe at its least size measures it first" in lines[-1]


def test_without_a_guess_a_quote_says_no_more_and_json_asks_no_more(file, logged_in):
    logged_in.on("POST", "/api/v1/quotes", Answer(202, unknown_to_every_round()))
    logged_in.on("GET", "/api/v1/offers", a_page())
    assert "guess" not in run("quote", file).stdout
    before = len(logged_in.asked)
    run("quote", file, "-o", "json")
    assert [one.path for one in logged_in.asked[before:]] == ["/api/v1/quotes"]


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("8.000000", "without the job: its bid for these GPUs raises the price by 0.374000"),
        ("9.000000", "without the job: with it the round is decided otherwise, 0.626000 below"),
        ("8.374000", "without the job"),
    ],
)
def test_a_price_that_the_job_itself_moves_says_so(file, logged_in, before, why):
    placed = QUOTE["answer"]["placed"][0] | {"price_before": before}
    answer = QUOTE["answer"] | {"placed": [placed]}
    logged_in.on("POST", "/api/v1/quotes", Answer(202, a_quote(answer=answer)))
    [line] = [x for x in run("quote", file).stdout.splitlines() if x.startswith("before")]
    assert line.endswith(f"{before} credits per GPU-hour, {why}")


def test_a_model_shows_how_it_is_split(file, logged_in):
    placed = QUOTE["answer"]["placed"][0]
    plan = {"tensor": 2, "pipeline": 1, "data": 2, "zero": 1, "micro_batch": 8}
    answer = QUOTE["answer"] | {"placed": [placed | {"plan": plan}], "displaces_own": ["job-1"]}
    logged_in.on("POST", "/api/v1/quotes", Answer(202, a_quote(answer=answer)))
    shown = run("quote", file).stdout
    assert "tensor 2 x pipeline 1 x data 2, ZeRO 1, micro-batch 8" in shown
    assert "your job-1; 2 of others" in shown


def test_a_quote_that_failed_exits_1_and_a_bad_file_2(tmp_path, file, logged_in):
    failed = a_quote(
        state="FAILED", answer=None, failed={"code": "solver_died", "message": "It died."}
    )
    logged_in.on("POST", "/api/v1/quotes", Answer(202, failed))
    done = run("quote", file)
    assert (done.exit_code, "It died. (solver_died)" in done.stdout) == (1, True)
    bad = tmp_path / "bad.yaml"
    bad.write_text(GOOD.replace("12.0", ".nan"))
    asked = len(logged_in.asked)
    assert run("quote", bad).exit_code == 2
    assert len(logged_in.asked) == asked
    logged_in.on("POST", "/api/v1/quotes", problem(409, "no_funds", "The deposit is used up."))
    done = run("quote", file)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "hanse: The deposit is used up. (no_funds, 409)\n"


def test_submit_cites_a_quote(file, logged_in):
    logged_in.on("POST", "/api/v1/jobs", Answer(201, a_job(quote=QUOTE["id"], quoted=None)))
    assert run("submit", file, "--quote", QUOTE["id"]).exit_code == 0
    assert logged_in.asked[0].body["quote"] == QUOTE["id"]
    assert json.loads(run("submit", file, "--dry-run", "--quote", QUOTE["id"]).stdout)["quote"]
    assert "quote" not in json.loads(run("submit", file, "--dry-run").stdout)
    assert run("submit", file, "--quote", "no-id").exit_code == 2


def test_a_job_shows_what_it_was_quoted(logged_in):
    quoted = {"payment": "5.582667", "samples": 720_000, "gpus": 4, "pool": "alder.a100"}
    job = a_job(quote=QUOTE["id"], quoted=quoted)
    logged_in.on("GET", f"/api/v1/jobs/{job['id']}", Answer(200, job))
    shown = run("status", job["id"]).stdout
    assert QUOTE["id"] in shown
    assert "5.582667 credits for 720,000 samples on 4 GPUs at alder.a100" in shown


def test_the_client_asks_reads_and_lists_quotes_blocking_and_not(broker):
    broker.on("POST", "/api/v1/quotes", Answer(202, WAITS))
    broker.on("GET", ADDRESS, Answer(200, QUOTE))
    broker.on("GET", "/api/v1/quotes", a_page(QUOTE))
    with Client(broker.url, TOKEN) as client:
        assert client.ask_quote({"name": "a"}) == WAITS
        assert client.quote(QUOTE["id"]) == QUOTE
        assert list(client.quotes()) == [QUOTE]

    async def again() -> None:
        async with AsyncClient(broker.url, TOKEN) as client:
            assert await client.ask_quote({"name": "a"}) == WAITS
            assert await client.quote(QUOTE["id"]) == QUOTE
            assert [row async for row in client.quotes()] == [QUOTE]

    asyncio.run(again())
