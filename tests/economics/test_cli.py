"""`python -m economics clear` and `verify`, as a process."""

import json
import subprocess
import sys

import pytest

from economics.__main__ import main
from tests.economics.books import DATA, a_book, a_job, example

BOOK = DATA / "book_three_sites.json"


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "economics", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_clear_then_verify(tmp_path):
    out = tmp_path / "clearing.json"
    cleared = run("clear", BOOK, "-o", out)
    assert (cleared.returncode, cleared.stdout, cleared.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["clearing.json"]
    verified = run("verify", BOOK, out)
    assert (verified.returncode, verified.stderr) == (0, "")
    lines = verified.stdout.splitlines()
    assert all(line.startswith("holds") for line in lines)
    assert {"sha256", "capacity", "bound"} <= {line.split()[1] for line in lines}


def test_the_same_bytes_on_standard_output_and_in_another_order(tmp_path):
    first = run("clear", BOOK)
    assert json.loads(first.stdout)["format"] == "hanse.clearing/1"
    book = example("book_three_sites")
    book["jobs"].reverse()
    book["pools"].reverse()
    (tmp_path / "book.json").write_text(json.dumps(book))
    assert run("clear", tmp_path / "book.json").stdout == first.stdout


def test_a_changed_clearing_exits_one(tmp_path, capsys):
    out = tmp_path / "clearing.json"
    assert main(["clear", str(BOOK), "-o", str(out)]) == 0
    out.write_text(out.read_text().replace("66992000", "66992001"))
    capsys.readouterr()
    assert main(["verify", str(BOOK), str(out)]) == 1
    assert "FAILS  sha256" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"format": 1', "is not JSON"),
        ('{"a": 1, "a": 1}', "duplicate key"),
        (json.dumps(a_book(a_job(value=-1.0))), "jobs[0].value: must not be negative, is -1.0"),
    ],
)
def test_a_bad_book_exits_two_and_writes_nothing(tmp_path, capsys, text, line):
    book, out = tmp_path / "book.json", tmp_path / "clearing.json"
    book.write_text(text)
    assert main(["clear", str(book), "-o", str(out)]) == 2
    told = capsys.readouterr()
    assert line in told.err
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert not out.exists()


def test_missing_files_exit_two(tmp_path, capsys):
    assert main(["clear", str(tmp_path / "none.json")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert main(["clear", str(BOOK), "-o", str(tmp_path / "no" / "out.json")]) == 2
    assert main(["verify", str(BOOK), str(tmp_path / "none.json")]) == 2


def test_a_bad_command_line_exits_two():
    assert run("clear").returncode == 2
    assert run("settle", BOOK).returncode == 2
    assert run().returncode == 2
    assert run("--help").returncode == 0
