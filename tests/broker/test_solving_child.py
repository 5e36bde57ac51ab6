"""The child that solves: limits, deaths, what is left afterwards. Real processes throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from broker.solving.scratch import KEPT, Scratch
from broker.solving.supervisor import Alone, Solver, SolverFailed
from federation.decision import Decision
from federation.snapshot import pack
from tests.economics.books import a_book, a_job

PATIENT_S = 60.0
MEMORY_MB = 1024
WAIT_S = 20.0


@pytest.fixture
def solver(tmp_path: Path) -> Iterator[Solver]:
    made = Solver(memory_mb=MEMORY_MB, works="tests.broker.misbehaving", scratch=tmp_path)
    yield made
    made.close()
    assert list(tmp_path.iterdir()) == []


def ask(solver, work, *, limit_s=PATIENT_S, crew=None, **parameters):
    return solver.ask(work, inputs={}, parameters=parameters, limit_s=limit_s, crew=crew)


def failure(solver, work, **options) -> SolverFailed:
    with pytest.raises(SolverFailed) as caught:
        ask(solver, work, **options)
    return caught.value


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # dead; its parent, which we are not, has yet to reap it


def until(condition, what: str):
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        threading.Event().wait(0.02)
    return found


def test_a_child_lives_from_errand_to_errand(solver):
    first, second = ask(solver, "echo", word="one"), ask(solver, "echo", word="two")
    assert (first["word"], second["word"]) == ("one", "two")
    assert (first["calls"], second["calls"]) == (1, 2)
    assert first["pid"] == second["pid"] == solver.pid


def test_documents_come_by_reference_and_are_read_from_their_file(solver):
    book = a_book(a_job("j", value=4.0))
    told = solver.ask("echo", inputs={"book": pack(book)}, parameters={}, limit_s=PATIENT_S)
    assert told["book"] == book


@pytest.mark.parametrize(
    ("work", "limit_s", "code", "words"),
    [
        ("hang", 0.5, "solver_timed_out", "no answer after 0.5 s"),
        ("eat", PATIENT_S, "solver_out_of_memory", f"its {MEMORY_MB} MB"),
        ("eat_at_once", PATIENT_S, "solver_out_of_memory", f"its {MEMORY_MB} MB"),
        ("crash", PATIENT_S, "solver_out_of_memory", f"its {MEMORY_MB} MB"),
        ("die", PATIENT_S, "solver_died", "by signal SIGKILL"),
        ("leave", PATIENT_S, "solver_died", "with code 3"),
        ("stumble", PATIENT_S, "solver_failed", "IndexError: index 7 is out of bounds"),
        ("give_up", PATIENT_S, "not_cleared", "status infeasible"),
        ("not_a_number", PATIENT_S, "solver_failed", "ValueError"),
        ("unheard_of", PATIENT_S, "solver_failed", "KeyError"),
    ],
)
def test_whatever_goes_wrong_has_a_code_and_a_sentence_and_the_next_errand_is_done(
    solver, work, limit_s, code, words
):
    ask(solver, "echo")
    before = solver.pid
    failed = failure(solver, work, limit_s=limit_s)
    assert failed.code == code
    assert words in failed.why
    assert failed.died == (code == "solver_died")
    after = ask(solver, "echo", word="next")
    assert after["word"] == "next"
    fresh = code in ("solver_timed_out", "solver_out_of_memory", "solver_died")
    assert (after["calls"] == 1) == fresh  # a new child counts from one
    assert gone(before) == fresh


def test_a_child_killed_from_outside_in_mid_errand_is_noticed_at_once(solver):
    solver.ready()
    pid, caught, mark = solver.pid, [], solver.scratch.folder / "begun"
    asking = threading.Thread(target=lambda: caught.append(failure(solver, "hang", mark=str(mark))))
    asking.start()
    until(mark.exists, "the errand's begin")
    os.kill(pid, signal.SIGKILL)
    asking.join(WAIT_S)
    assert not asking.is_alive()
    [failed] = caught
    assert (failed.code, failed.died) == ("solver_died", True)
    assert ask(solver, "echo")["pid"] != pid


def test_a_child_killed_between_errands_is_replaced_without_a_word(solver):
    first = ask(solver, "echo")["pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: solver.pid is None, "the child's end")
    assert ask(solver, "echo")["pid"] != first


def test_a_child_that_cannot_start_says_so(tmp_path):
    solver = Solver(memory_mb=MEMORY_MB, works="tests.broker.no_such_works", scratch=tmp_path)
    assert failure(solver, "echo").code == "solver_died"
    solver.close()
    poor = Solver(memory_mb=1, works="broker.solving.works", scratch=tmp_path)
    assert failure(poor, "round").code in ("solver_out_of_memory", "solver_died")
    poor.close()


def test_a_child_is_told_none_of_the_broker_s_secrets(solver, monkeypatch):
    for name in ("HANSE_SECRET_KEY", "HANSE_DATABASE_URL", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("LESS_SECRET", "y")
    solver.ready()
    told = Path(f"/proc/{solver.pid}/environ").read_bytes()
    assert b"LESS_SECRET=y" in told
    assert b"HANSE_" not in told
    assert b"DJANGO_" not in told


def test_what_a_solver_prints_is_not_taken_for_an_answer(solver):
    assert ask(solver, "chatter") == {"said": True}
    assert ask(solver, "echo", word="still in step")["word"] == "still in step"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Solver]:
    made = Solver(memory_mb=4096, scratch=tmp_path)
    yield made
    made.close()


def test_the_real_works_decide_a_round(engine):
    book = a_book(a_job("cheap", value=2.0, gang=4), a_job("dear", value=3.0, gang=4))
    bodies = {"book": pack(book)}
    found = Decision.read(engine.ask("round", inputs=bodies, parameters={}, limit_s=PATIENT_S))
    [line] = found.clearing["allocation"]
    assert line["job"] == "dear"
    refused = engine.ask("round", inputs={"book": pack({})}, parameters={}, limit_s=PATIENT_S)
    assert Decision.read(refused).void_code == "bad_book"


PARENT = """
import os, sys
from pathlib import Path
from broker.solving.supervisor import Solver
solver = Solver(memory_mb=1024, works="tests.broker.misbehaving", scratch=Path(sys.argv[1]))
solver.ready()
print(solver.pid, flush=True)
if sys.argv[2] == "busy":
    solver.ask("hang", inputs={}, parameters={}, limit_s=600)
sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["busy", "idle"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphan_stays_when_the_worker_is_killed(tmp_path, state, number):
    worker = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), state],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        worker.send_signal(number)
    until(lambda: gone(pid), "the child's end")


def test_the_folder_of_a_killed_worker_is_swept_and_that_of_a_living_one_is_not(tmp_path):
    living = Scratch(tmp_path)
    dead = Scratch(tmp_path)
    dead._lock.close()  # as the kernel does when its process is killed
    for scratch in (living, dead):
        os.utime(scratch.folder, (0, 0))
    fresh = Scratch(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {living.folder.name, fresh.folder.name}
    living.close()
    fresh.close()


def test_only_the_last_documents_are_kept(tmp_path):
    scratch = Scratch(tmp_path)
    paths = [scratch.document(str(n).encode()) for n in range(KEPT + 3)]
    assert all(path.exists() for path in paths), "an errand may read many documents"
    scratch.tidy()
    assert [path.exists() for path in paths] == [False] * 3 + [True] * KEPT
    assert scratch.document(b"5") == paths[5]
    scratch.close()


class Others(Alone):
    """A crew whose other workers have taken the even parts and bring them when they are asked."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[int] = []
        self.closed = 0

    def open(self, name: str, bodies: list[bytes], files: Sequence[Path]) -> None:
        super().open(name, bodies, files)
        self.bodies = bodies

    def take(self) -> int | None:
        mine = [at for at, r in enumerate(self._results) if r is None and at % 2]
        if not mine:
            for at, body in enumerate(self.bodies):
                if at % 2 == 0:
                    self._results[at] = str(int(body) ** 2).encode()
            return None
        self.taken.append(mine[0])
        return mine[0]

    def close(self) -> None:
        super().close()
        self.closed += 1


@pytest.mark.parametrize("crew", [None, Others()])
def test_parts_of_an_errand_are_shared_out_and_put_together_in_order(solver, crew):
    told = ask(solver, "shared_out", crew=crew, numbers=[1, 2, 3, 4, 5])
    assert told == {"squares": [1, 4, 9, 16, 25], "total": sum(n**4 for n in range(6))}
    if crew is not None:
        assert crew.taken == [1, 3, 1, 3]  # both times only what nobody else had
        assert crew.closed == 2


def test_a_part_that_fails_fails_the_errand(solver):
    assert failure(solver, "shared_out", numbers=["x"]).code == "solver_failed"
    assert solver.part("square", b"7", limit_s=PATIENT_S, files={}) == b"49"


class Lost(Alone):
    """A crew whose other workers took everything and never come back."""

    def __init__(self, on_take=lambda: None) -> None:
        super().__init__()
        self._on_take = on_take

    def take(self) -> int | None:
        self._on_take()
        return None


def test_waiting_for_others_ends_with_the_limit_and_with_the_child(solver):
    ask(solver, "echo")
    late = failure(solver, "shared_out", crew=Lost(), limit_s=0.4, numbers=[1])
    assert late.code == "solver_timed_out"
    crew = Lost(on_take=lambda: os.kill(solver.pid, signal.SIGKILL) if solver.pid else None)
    assert failure(solver, "shared_out", crew=crew, numbers=[1]).code == "solver_died"
