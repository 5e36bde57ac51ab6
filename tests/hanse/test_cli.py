"""The `hanse` command as a tenant meets it: output, standard error, exit codes."""

from __future__ import annotations

import json
import stat
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from hanse.cli import app
from tests.hanse.stub import TOKEN, Answer, a_job, a_page, problem
from tests.hanse.test_jobfile import GOOD, LEAST

JOB = a_job()
PATH = f"/api/v1/jobs/{JOB['id']}"


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


def process(*words, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "hanse", *map(str, words)], capture_output=True, text=True
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def test_dry_run_shows_the_body_and_needs_neither_server_nor_login(file):
    done = run("submit", "--dry-run", file)
    assert (done.exit_code, done.stderr) == (0, "")
    body = json.loads(done.stdout)
    assert (body["name"], body["samples"], body["value"]) == ("resnet-a", 3_800_000, "12.0")


def test_dry_run_imports_no_django_and_no_numpy(file):
    program = (
        "import sys\nfrom hanse.cli import app\n"
        f"try: app(['submit', '--dry-run', {str(file)!r}])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'django', 'numpy', 'cvxpy', 'agents', 'broker', 'federation', 'economics'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


def test_several_jobs_are_a_list_and_env_reaches_each(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(f"{LEAST}---\n{LEAST.replace('name: j', 'name: k')}")
    done = run("submit", "--dry-run", path, "--env", "A=b=c")
    assert [(body["name"], body["env"]) for body in json.loads(done.stdout)] == [
        ("j", {"A": "b=c"}),
        ("k", {"A": "b=c"}),
    ]


def test_every_problem_is_one_line_with_file_and_line_and_nothing_is_sent(
    tmp_path, file, logged_in
):
    bad = tmp_path / "bad.yaml"
    bad.write_text(GOOD.replace("resnet-a", "a/b").replace("12.0", ".nan"))
    done = run("submit", file, bad, tmp_path / "absent.yaml")
    assert (done.exit_code, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"{bad}:1: name: must be")
    assert lines[1] == f"{bad}:9: market.value: must be a finite number"
    assert lines[2].startswith(f"{tmp_path / 'absent.yaml'}:1: cannot be read")
    assert logged_in.asked == []


def test_what_is_not_honoured_is_said_beside_the_body(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(GOOD.replace("{grace_s: 60}", "{path: ckpt}"))
    done = run("submit", "--dry-run", path)
    assert done.exit_code == 0
    assert f"{path}:7: workload.checkpoint.path: not honoured yet" in done.stderr
    json.loads(done.stdout)


def test_a_job_file_may_come_from_standard_input():
    assert json.loads(run("submit", "--dry-run", "-", input=LEAST).stdout)["name"] == "j"


@pytest.mark.parametrize("option", ["A", "=b", "1A=b", "HANSE_TOKEN=x"])
def test_an_env_option_that_is_none_is_a_wrong_call(file, option):
    assert run("submit", "--dry-run", file, "--env", option).exit_code == 2


def test_submit_prints_the_id(file, logged_in):
    logged_in.on("POST", "/api/v1/jobs", Answer(201, JOB))
    done = run("submit", file)
    assert (done.exit_code, done.stdout) == (0, f"{JOB['id']} resnet-a PENDING\n")
    assert logged_in.asked[0].body["job_class"] == "resnet50-b64"


def test_a_refusal_of_the_api_is_one_sentence_with_its_code(file, logged_in):
    logged_in.on("POST", "/api/v1/jobs", problem(409, "no_funds", "The deposit is used up."))
    done = run("submit", file)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "hanse: The deposit is used up. (no_funds, 409)\n"


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        ("SUCCEEDED", None, 0),
        ("FAILED", {"code": "exit_7", "message": "ended with 7"}, 7),
        ("FAILED", {"code": "exit_999", "message": ""}, 1),
        ("FAILED", {"code": "lost", "message": "the site is gone"}, 1),
        ("EXPIRED", None, 1),
    ],
)
def test_wait_ends_with_the_jobs_own_exit_code(file, logged_in, state, reason, code):
    logged_in.on("POST", "/api/v1/jobs", Answer(201, JOB))
    ended = a_job(state=state, reason=reason)
    logged_in.on("GET", PATH, Answer(200, a_job(state="RUNNING")), Answer(200, ended))
    done = run("submit", file, "--wait", "--every", "0.05", "-o", "json")
    assert done.exit_code == code
    assert json.loads(done.stdout)["state"] == state
    assert [line.split(": ")[1].split(" ")[0] for line in done.stderr.splitlines()] == [
        "PENDING",
        "RUNNING",
        state,
    ]


def test_status_is_a_table_with_units(logged_in):
    logged_in.on("GET", "/api/v1/jobs", a_page(JOB))
    for verb in ("status", "ps"):
        done = run(verb)
        header, row = done.stdout.splitlines()
        assert "CREDITS/GPU-H" in header
        assert JOB["id"] in row
        assert header.index("CREDITS/GPU-H") + len("CREDITS/GPU-H") == row.index("8.374") + 5


def test_json_is_the_apis_answer(logged_in):
    logged_in.on("GET", "/api/v1/jobs", a_page(JOB))
    logged_in.on("GET", PATH, Answer(200, JOB))
    listed = run("status", "-o", "json").stdout
    assert json.loads(listed) == {"results": [JOB], "next": None, "previous": None}
    assert listed.count("\n") == 1  # indented at a terminal only
    assert json.loads(run("status", JOB["id"], "-o", "json").stdout) == JOB


def test_a_limit_is_kept_and_said(logged_in):
    logged_in.on(
        "GET", "/api/v1/jobs", a_page(a_job(id="1" * 8), a_job(id="2" * 8), following="?a=b")
    )
    done = run("status", "--limit", "1")
    assert "11111111" in done.stdout
    assert "22222222" not in done.stdout
    assert "--limit" in done.stderr


def test_one_job_is_shown_in_full(logged_in):
    job = a_job(reason={"code": "no_capacity", "message": "All pools are full."})
    logged_in.on("GET", PATH, Answer(200, job))
    shown = run("status", JOB["id"]).stdout
    assert "All pools are full. (no_capacity)" in shown
    assert "12.000 credits per million samples" in shown
    assert "250 of 1,000" in shown


def test_a_job_is_found_by_prefix_and_by_name_but_not_by_a_guess(logged_in):
    other = a_job(id="0190d3c2-ffff-7000-8000-000000000002", name="other")
    logged_in.on("GET", "/api/v1/jobs", a_page(JOB, following="?cursor=b"), a_page(other))
    logged_in.answers["GET", "/api/v1/jobs"] = lambda asked: (
        a_page(other) if asked.query else a_page(JOB, following="?cursor=b")
    )
    assert "other" in run("status", "other").stdout
    assert "other" in run("status", "0190d3c2-f").stdout
    for nothing in ("0190d", "othe", "nobody"):
        done = run("status", nothing)
        assert (done.exit_code, "no_such_job" in done.stderr) == (1, True)
    done = run("cancel", "0190d3c2")
    assert done.exit_code == 1
    assert "2 jobs" in done.stderr
    assert JOB["id"] in done.stderr
    assert other["id"] in done.stderr
    assert all(asked.method == "GET" for asked in logged_in.asked)


def test_cancel_says_the_new_state(logged_in):
    logged_in.on("GET", PATH, Answer(200, JOB))
    logged_in.on("POST", f"{PATH}/cancel", Answer(200, a_job(state="CANCELLING")))
    assert run("cancel", JOB["id"]).stdout.endswith("CANCELLING\n")


def test_why_tells_the_rounds_and_the_story(logged_in):
    logged_in.on("GET", PATH, Answer(200, JOB))
    answer = {
        "job": JOB["id"],
        "state": "PENDING",
        "summary": "Priced out in round 7.",
        "rounds": [{"round": 7, "at": "2026-11-21T10:00:00Z", "outcome": "unplaced",
                    "code": "priced_out", "why": "8.374 is above its bid", "pool": None,
                    "price": "8.374"}],
        "story": [{"at": "2026-11-21T09:00:00Z", "event": "submit", "from": None,
                   "to": "PENDING", "who": "clover", "code": "", "why": "submitted"}],
    }  # fmt: skip
    logged_in.on("GET", f"{PATH}/why", Answer(200, answer))
    shown = run("why", JOB["id"]).stdout
    assert shown.startswith("PENDING: Priced out in round 7.\n")
    assert "8.374 is above its bid" in shown
    assert "submitted" in shown
    assert json.loads(run("why", JOB["id"], "-o", "json").stdout) == answer


def test_offers_show_price_and_speed_and_no_control_characters(logged_in):
    offer = {
        "site": "al\x1b[31mder", "pool": "alder.a100", "gpu": "A100", "gpus": 8,
        "reserve": "1.5", "price": None, "valid_until": None, "note": "throttled [bold]to half",
        "affinities": [{"job_class": "lm", "gpus": 1, "declared": 1200.0, "measured": None,
                        "believed": 1150.5, "reports": 3}],
    }  # fmt: skip
    bare = offer | {"site": "birch", "pool": "birch.h100", "affinities": [], "note": ""}
    logged_in.on("GET", "/api/v1/offers", a_page(offer, bare))
    shown = run("offers").stdout
    assert "\x1b" not in shown
    assert "1,200" in shown
    assert "birch.h100" in shown
    assert "throttled [bold]to half" in shown


def test_a_guess_does_not_look_like_a_measured_speed(logged_in):
    known = {"job_class": "lm", "gpus": 1, "declared": 1200.0, "measured": 1100.0,
             "believed": 1150.0, "low": 1000.0, "high": 1300.0, "source": "blended",
             "priced": True, "reports": 3, "known_at": "2000-01-01T00:00:00Z"}  # fmt: skip
    guess = known | {"job_class": "cnn", "declared": None, "measured": None, "source": "roofline",
                     "priced": False, "reports": 0, "low": 500.0, "known_at": "soon"}  # fmt: skip
    offer = {
        "site": "alder", "pool": "alder.a100", "gpu": "A100", "gpus": 8, "reserve": "1.5",
        "price": None, "valid_until": None, "note": "", "affinities": [known, guess],
    }  # fmt: skip
    logged_in.on("GET", "/api/v1/offers", a_page(offer))
    head, first, second, note = run("offers").stdout.splitlines()
    for column in ("90 % BETWEEN", "SOURCE", "PRICED", "AGE"):
        assert column in head
    assert first.split()[-6:-2] == ["1,000-1,300", "blended", "yes", "3"]
    assert first.split()[-1] == "d"
    assert int(first.split()[-2]) > 9000
    assert second.split()[-5:] == ["500-1,300", "roofline", "no", "0", "-"]
    assert note.startswith("PRICED no: a guess")


def test_rounds_show_void_ones_with_their_reason(logged_in):
    row = {"number": 7, "venue": "main", "state": "VOID", "opened_at": "2026-11-21T10:00:00Z",
           "closes_at": "2026-11-21T10:05:00.5Z", "traded_gpus": None, "surplus": None, "bids": 3,
           "offers": 2, "void": {"code": "late", "message": "The solver was late."},
           "certified": False, "snapshot_sha256": None}  # fmt: skip
    logged_in.on("GET", "/api/v1/rounds", a_page(row))
    shown = run("rounds").stdout
    assert "The solver was late." in shown
    assert "2026-11-21 10:05:00Z" in shown


def test_an_empty_list_says_so(logged_in):
    logged_in.on("GET", "/api/v1/rounds", a_page())
    assert run("rounds").stdout == "no rounds\n"


def log_of(**attempts: bytes):
    """Answers as the logs endpoint does, four bytes at a time."""

    def answer(asked):
        number = int(asked.query.get("attempt", len(attempts)))
        data, offset = attempts[f"a{number}"], int(asked.query["offset"])
        piece = data[offset : offset + 4]
        return Answer(
            200,
            piece,
            {
                "Hanse-Attempt": str(number),
                "Hanse-Attempts": str(len(attempts)),
                "Hanse-Next-Offset": str(offset + len(piece)),
                "Hanse-Complete": "true",
                "Hanse-Truncated": "false",
            },
        )

    return answer


def test_logs_come_whole_and_of_the_attempt_asked_for(logged_in):
    logged_in.on("GET", PATH, Answer(200, JOB))
    logged_in.answers["GET", f"{PATH}/logs"] = log_of(a1=b"the first\n", a2=b"the second\xff\n")
    assert run("logs", JOB["id"]).stdout_bytes == b"the second\xff\n"
    assert run("logs", JOB["id"], "--attempt", "1").stdout_bytes == b"the first\n"
    assert run("logs", JOB["id"], "-f", "--attempt", "1").stdout_bytes == b"the first\n"


def test_a_log_as_json_is_one_value(logged_in):
    logged_in.on("GET", PATH, Answer(200, JOB))
    logged_in.answers["GET", f"{PATH}/logs"] = log_of(a1=b"loss 0.5\n\xff")
    shown = json.loads(run("logs", JOB["id"], "-o", "json").stdout)
    assert shown == {
        "job": JOB["id"],
        "name": JOB["name"],
        "bytes": 10,
        "text": "loss 0.5\n\ufffd",
    }


def test_following_a_log_goes_on_into_the_next_attempt_until_the_job_ends(logged_in):
    states = iter(["RUNNING", "RUNNING", "PENDING", "SUCCEEDED", "SUCCEEDED"])
    logged_in.answers["GET", PATH] = lambda _: Answer(200, a_job(state=next(states, "SUCCEEDED")))
    first, both = log_of(a1=b"one\n"), log_of(a1=b"one\n", a2=b"two\n")
    asked_before = []

    def answer(asked):
        asked_before.append(asked)
        return (first if len(asked_before) < 4 else both)(asked)

    logged_in.answers["GET", f"{PATH}/logs"] = answer
    done = run("logs", JOB["id"], "-f", "--every", "0.05")
    assert (done.exit_code, done.stdout_bytes) == (0, b"one\ntwo\n")
    assert "attempt 2" in done.stderr


def test_a_job_without_an_attempt_has_an_empty_log(logged_in):
    logged_in.on("GET", PATH, Answer(200, a_job(state="CANCELLED")))
    logged_in.on("GET", f"{PATH}/logs", Answer(200, b"", {"Hanse-Attempts": "0"}))
    assert run("logs", JOB["id"], "-f").stdout_bytes == b""


def test_a_job_that_waits_for_its_probe_points_to_the_probes_log(logged_in):
    other = a_job(id="0190d3c2-0000-7000-8000-0000000000b1", kind="probe", parent="another")
    probe = a_job(id="0190d3c2-0000-7000-8000-0000000000b2", kind="probe", parent=JOB["id"])
    logged_in.on("GET", PATH, Answer(200, a_job(attempt=None)))
    logged_in.on("GET", f"{PATH}/logs", Answer(200, b"", {"Hanse-Attempts": "0"}))
    logged_in.on("GET", "/api/v1/jobs", a_page(other, probe))
    done = run("logs", JOB["id"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.endswith(f"its probe has a log of its own: hanse logs {probe['id']}\n")
    assert logged_in.asked[-1].query == {"kind": "probe"}
    logged_in.on("GET", "/api/v1/jobs", a_page(other))
    assert run("logs", JOB["id"]).stderr == "no log: the job has not been started yet\n"


def test_login_checks_the_token_and_keeps_it_for_its_owner_only(broker, tmp_path):
    broker.on("GET", "/api/v1/me", Answer(200, {"name": "clover"}))
    broker.on("GET", "/api/v1/jobs", a_page())
    done = run("login", f"{broker.url}/", input=f"{TOKEN}\n")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.endswith(f"logged in to {broker.url} as clover\n")
    assert TOKEN not in done.stdout
    path = tmp_path / "config" / "hanse" / "login.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["login.json"]
    assert run("status").stdout == "no jobs\n"
    assert broker.asked[-1].headers["Authorization"] == f"Bearer {TOKEN}"


def test_a_refused_token_is_not_kept(broker, tmp_path):
    broker.on("GET", "/api/v1/me", problem(401, "authentication_failed", "Invalid token."))
    done = run("login", broker.url, "--token", TOKEN)
    assert (done.exit_code, "Invalid token." in done.stderr) == (1, True)
    assert not (tmp_path / "config").exists()


def test_the_stored_token_goes_to_no_other_broker(broker, monkeypatch):
    broker.on("GET", "/api/v1/me", Answer(200, {}))
    assert run("login", broker.url, "--token", TOKEN).exit_code == 0
    monkeypatch.setenv("HANSE_URL", "https://elsewhere.example")
    done = run("status")
    assert (done.exit_code, "set HANSE_TOKEN" in done.stderr) == (1, True)


def test_without_a_login_the_command_says_how_to_get_one():
    done = run("status")
    assert (done.exit_code, done.stderr) == (
        1,
        "hanse: log in with: hanse login URL (not_configured)\n",
    )


def test_the_command_runs_as_a_process(file):
    assert process("--version").stdout.startswith("hanse ")
    assert "submit" in process("--help").stdout
    assert json.loads(process("submit", "--dry-run", file).stdout)["name"] == "resnet-a"
    assert process("nonsense", check=False).returncode == 2
