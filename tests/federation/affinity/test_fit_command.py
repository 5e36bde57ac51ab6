"""`python -m federation.affinity fit` and `predict`: tables in and out, sentences for the rest."""

import csv
import json
import math
import subprocess
import sys

import pytest

from federation.affinity.__main__ import main

HEADER = "class,nodes,replicas,local_bsz,step_time_s"
ROWS = [
    f"cnn,{nodes},{replicas},{batch},{0.01 + 0.001 * batch + 0.02 * (replicas > 1) * nodes}"
    for nodes, replicas in ((1, 1), (1, 2), (2, 4), (2, 8))
    for batch in (8, 16, 32)
]
ADDED = ["step_time_s", "samples_per_s", "lower", "upper", "extrapolated"]


@pytest.fixture
def write(tmp_path):
    def put(name, *lines):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return put


def run(*words):
    return main([str(word) for word in words])


def refused(capsys, *words):
    """The sentences of a command that exits 2."""
    assert run(*words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in error
    return error.splitlines()


def test_the_two_commands_as_they_are_typed(write, tmp_path):
    samples = write("samples.csv", HEADER, *ROWS)
    asked = write("configs.csv", "class,nodes,replicas,local_bsz", "cnn,2,6,16", "cnn,4,16,16")
    model, out = tmp_path / "model.json", tmp_path / "out.csv"
    for words in (["fit", samples, "-o", model], ["predict", model, asked, "-o", out]):
        command = [sys.executable, "-m", "federation.affinity", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with out.open(newline="") as file:
        header, first, second = csv.reader(file)
    assert header == ["class", "nodes", "replicas", "local_bsz", *ADDED]
    assert first[:4] == ["cnn", "2", "6", "16"]
    step, rate, lower, upper = map(float, first[4:8])
    assert lower < step < upper
    assert rate == pytest.approx(6 * 16 / step)
    assert step == pytest.approx(0.066, rel=0.15)
    assert (first[8], second[8]) == ("false", "true")


def test_rows_keep_their_order_and_their_columns(write, capsys, tmp_path):
    pool = [f"{row},X.H,,0" for row in ROWS] + [f"{row.replace('cnn', 'lm')},Y.H,," for row in ROWS]
    samples = write("s.csv", f"{HEADER},pool,sync_time_s,accum_steps", *pool)
    model = tmp_path / "m.json"
    assert run("fit", samples, "-o", model) == 0
    lines = ["2,lm,Y.H,1,8,1", "1,cnn,X.H,1,8,0", "2,lm,Y.H,2,32,"]
    asked = write("c.csv", "replicas,class,pool,nodes,local_bsz,accum_steps", *lines)
    assert run("predict", model, asked) == 0
    rows = list(csv.reader(capsys.readouterr().out.splitlines()))
    assert [",".join(row[:6]) for row in rows[1:]] == lines
    assert float(rows[1][7]) == pytest.approx(2 * 8 * 2 / float(rows[1][6]))


def test_a_class_of_one_pool_needs_no_pool_named(write, capsys, tmp_path):
    model, two = tmp_path / "m.json", tmp_path / "two.json"
    asked = write("c.csv", "class,nodes,replicas,local_bsz", "cnn,1,2,8")
    one_pool = [f"{row},X" for row in ROWS]
    assert run("fit", write("s.csv", f"{HEADER},pool", *one_pool), "-o", model) == 0
    assert run("predict", model, asked) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    two_pools = [*one_pool, *(f"{row},Y" for row in ROWS)]
    assert run("fit", write("t.csv", f"{HEADER},pool", *two_pools), "-o", two) == 0
    [line] = refused(capsys, "predict", two, asked)
    assert line.endswith("line 2: class 'cnn' was fitted on 'X', 'Y': its pool must be named")


def test_row_order_does_not_change_the_model(write, tmp_path):
    one, other = tmp_path / "1.json", tmp_path / "2.json"
    assert run("fit", write("a.csv", HEADER, *ROWS), "-o", one) == 0
    assert run("fit", write("b.csv", HEADER, *ROWS[::-1]), "-o", other) == 0
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("lines", "sentences"),
    [
        ([], ["the file is empty"]),
        ([HEADER], ["there is no sample"]),
        (["class,nodes,replicas,step_time_s"], ["local_bsz: this column is missing"]),
        ([f"{HEADER},bsz"], ["bsz: this column is not known"]),
        ([f"{HEADER},"], ["a column without a name: this column is not known"]),
        ([f"{HEADER},nodes"], ["nodes: this column stands twice"]),
        ([HEADER, "cnn,1,1,8,nan"], ["line 2: step_time_s is nan"]),
        ([HEADER, "cnn,1,1,8,0", "cnn,1,1,8,-2"], ["line 2: step_time_s is 0", "line 3: step_"]),
        ([HEADER, "cnn,1,1,8,1e400"], ["line 2: step_time_s is inf"]),
        ([HEADER, "cnn,one,1,8,1", "cnn,1,,8,1"], ["'one' is not a number", "replicas: is empty"]),
        ([HEADER, "cnn,1,1.5,8,1"], ["replicas is 1.5: it must be a whole number"]),
        ([HEADER, "cnn,4,2,8,1"], ["line 2: 2 replicas cannot stand on 4 nodes"]),
        ([HEADER, ",1,1,8,1"], ["line 2, class: is empty"]),
        ([HEADER, "cnn,1,1,8"], ["line 2: 4 cells where the header has 5"]),
        ([HEADER, "cnn,1,1,8,1"], ["class cnn: 1 sample of one configuration only"]),
        (
            [HEADER, "cnn,1,1,8,1", "lm,1,1,8,1"],
            ["class cnn: 1 sample of one", "class lm: 1 sample of one configuration only"],
        ),
        ([HEADER, "", "cnn,1,1,8,1", "  ", "cnn,1,1,8,nan"], ["line 5: step_time_s is nan"]),
        ([HEADER, "cnn,1,1,1_0,1", "cnn,1,1,８,1"], ["'1_0' is not a number", "'８' is not"]),
        ([HEADER, "cnn,1,1,8\u00a0,1"], ["is not a number"]),
        ([HEADER, *["cnn,1,1,8,1"] * 9], ["class cnn: 9 samples of one configuration only"]),
        ([f"{HEADER},sync_time_s", "cnn,1,1,8,1,2"], ["sync_time_s 2 is not below step_time_s 1"]),
        ([f"{HEADER},sync_time_s", "cnn,1,1,8,1,nan"], ["line 2: sync_time_s is nan"]),
        ([f"{HEADER},accum_steps", "cnn,1,1,8,1,-1"], ["line 2: accum_steps is -1"]),
    ],
)
def test_bad_samples_are_one_line_each(write, capsys, tmp_path, lines, sentences):
    path = write("samples.csv", *lines) if lines else tmp_path / "samples.csv"
    path.touch()
    found = refused(capsys, "fit", path, "-o", tmp_path / "m.json")
    assert len(found) == len(sentences)
    for line, sentence in zip(found, sentences, strict=True):
        assert line.startswith(f"{path}: ")
        assert sentence in line
    assert not (tmp_path / "m.json").exists()


def test_a_thin_class_is_said_and_the_others_are_fitted(write, capsys, tmp_path):
    model = tmp_path / "m.json"
    samples = write("s.csv", HEADER, *ROWS, "lm,1,1,8,1")
    assert run("fit", samples, "-o", model) == 0
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"{samples}: class lm: 1 sample of one configuration only")
    assert len(error.splitlines()) == 1
    assert [one["class"] for one in json.loads(model.read_text())["models"]] == ["cnn"]
    asked = write("c.csv", "class,nodes,replicas,local_bsz", "cnn,1,2,8", "", "lm,1,2,8")
    [line] = refused(capsys, "predict", model, asked)
    assert line.endswith("line 4: class 'lm' was not fitted")


def test_blank_lines_and_spaces_around_names_mean_nothing(write, tmp_path, capsys):
    plain, spaced = tmp_path / "1.json", tmp_path / "2.json"
    assert run("fit", write("a.csv", f"{HEADER},pool", *(f"{r},X" for r in ROWS)), "-o", plain) == 0
    header = f" {HEADER} , pool".replace(",", ", ")
    rows = [line for row in ROWS for line in (f" {row}, X ", "", "   ")]
    assert run("fit", write("b.csv", header, "", *rows), "-o", spaced) == 0
    assert plain.read_bytes() == spaced.read_bytes()
    asked = write("c.csv", "class ,nodes,replicas,local_bsz", "", " cnn,1,2,8", "")
    assert run("predict", plain, asked) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_many_problems_stop_the_reading(write, capsys, tmp_path):
    found = refused(capsys, "fit", write("s.csv", HEADER, *["cnn,1,1,8,nan"] * 500))
    assert len(found) == 101
    assert found[-1].endswith("and perhaps more; reading stopped here")


def test_files_that_are_no_tables(capsys, tmp_path):
    absent = tmp_path / "absent.csv"
    assert refused(capsys, "fit", absent) == [f"{absent}: No such file or directory"]
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "is not a CSV file that we read" in refused(capsys, "fit", binary)[0]
    [line] = refused(capsys, "fit", tmp_path)
    assert line.endswith("Is a directory")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda found: found.update(format="other"), "not a document of hanse.throughput/1"),
        (lambda found: found.update(models=[]), "at least one model"),
        (lambda found: found["models"][0].pop("theta"), "models[0]: theta is missing"),
        (lambda found: found["models"][0].update(scale=-1), "scale and noise must be above 0"),
        (lambda found: found["models"][0].update(scale=1e300), "scale and noise must be above 0"),
        (lambda found: found["models"][0].update(noise=1e300), "scale and noise must be above 0"),
        (lambda found: found["models"][0]["weights"].__setitem__(0, 1e9), "weights must not add"),
        (lambda found: found["models"][0]["batches"].__setitem__(0, 1e9), "batches must rise"),
        (lambda found: found["models"][0]["prior"].update(power=1e5), "power must lie between"),
        (lambda found: found["models"][0]["prior"].update(overlap=[0, 1e300]), "a belief must lie"),
        (lambda found: found["models"][0]["cells"].update(lowest=[0, 1, 8]), "lowest and highest"),
        (lambda found: found["models"][0]["cells"].update(lowest=[3, 1, 8]), "lowest and highest"),
        (
            lambda found: found["models"][0]["cells"].update(highest=[2, 8, math.inf]),
            "is not JSON we read",
        ),
        (lambda found: found["models"][0]["cells"]["sums"][0].__setitem__(6, -1), "a cell lies"),
        (lambda found: found["models"][0]["cells"]["sums"][0].__setitem__(7, 9), "a cell lies"),
        (lambda found: found["models"][0]["cells"]["sums"][0].__setitem__(4, 2**60), "a cell lies"),
        (lambda found: found["models"][0]["theta"].pop(), "do not belong to these cells"),
        (lambda found: found["models"][0]["cells"].update(keys=[]), "four keys and nine sums"),
        (lambda found: found["models"][0]["theta"].__setitem__(0, "x"), "'x' is not a number"),
        (lambda found: found["models"].append(found["models"][0]), "cnn stands twice"),
    ],
)
def test_a_spoilt_model_is_refused(write, capsys, tmp_path, change, sentence):
    model = tmp_path / "m.json"
    assert run("fit", write("s.csv", HEADER, *ROWS), "-o", model) == 0
    found = json.loads(model.read_text())
    change(found)
    model.write_text(json.dumps(found))
    asked = write("c.csv", "class,nodes,replicas,local_bsz", "cnn,1,2,8")
    [line] = refused(capsys, "predict", model, asked)
    assert sentence in line


def test_a_model_that_is_not_json(write, capsys, tmp_path):
    asked = write("c.csv", "class,nodes,replicas,local_bsz", "cnn,1,2,8")
    [line] = refused(capsys, "predict", write("m.json", "{"), asked)
    assert "is not JSON we read" in line
    absent = tmp_path / "absent.json"
    assert refused(capsys, "predict", absent, asked) == [f"{absent}: No such file or directory"]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["class,nodes,replicas,local_bsz"], "there is no configuration"),
        (["class,nodes,replicas,local_bsz", "gnn,1,1,8"], "line 2: class 'gnn' was not fitted"),
        (["class,nodes,replicas,local_bsz", "cnn,2,1,8"], "line 2: 1 replicas cannot stand on 2"),
        (["class,nodes,replicas,local_bsz", "cnn,1,1,nan"], "line 2: local_bsz is nan"),
        ([HEADER, ROWS[0]], "step_time_s: this column is not known"),
    ],
)
def test_bad_configurations_are_sentences(write, capsys, tmp_path, lines, sentence):
    model, out = tmp_path / "m.json", tmp_path / "o.csv"
    assert run("fit", write("s.csv", HEADER, *ROWS), "-o", model) == 0
    [line] = refused(capsys, "predict", model, write("c.csv", *lines), "-o", out)
    assert sentence in line
    assert not out.exists()


def test_an_output_that_cannot_be_written(write, capsys, tmp_path):
    samples = write("s.csv", HEADER, *ROWS)
    [line] = refused(capsys, "fit", samples, "-o", tmp_path / "absent" / "m.json")
    assert "No such file or directory" in line


def test_more_rows_than_are_held_at_once(write, capsys, tmp_path):
    rows = [
        f"cnn,{1 + row % 2},{2 + row % 7},{1 + row},{0.01 + row * 1e-6:.6f}"
        for row in range(70_000)
    ]
    model = tmp_path / "m.json"
    assert run("fit", write("s.csv", HEADER, *rows), "-o", model) == 0
    found = json.loads(model.read_text())["models"][0]["cells"]
    assert sum(row[4] for row in found["sums"]) == 70_000
    assert len(found["keys"]) <= 512
    asked = write("c.csv", "class,nodes,replicas,local_bsz", "cnn,2,5,35000")
    assert run("predict", model, asked) == 0
    row = next(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert math.isclose(float(row["step_time_s"]), 0.045, rel_tol=0.1)


def test_exit_code_of_a_wrong_command_line(capsys):
    with pytest.raises(SystemExit) as left:
        main(["fit"])
    assert left.value.code == 2
    assert "SAMPLES.csv" in capsys.readouterr().err
