"""Verify accepts what was published and catches any changed digit."""

import copy
import json
import re
import subprocess
import sys

import pytest

from economics.book import document_sha256
from economics.certificate import verify
from economics.errors import BadBook
from tests.economics.books import a_book, a_job, a_pool, clear, example


@pytest.fixture(scope="module", params=["book_gangs", "book_three_sites"])
def round_(request):
    document = example(request.param)
    return document, clear(document)


def failures(document, clearing):
    return {check.check for check in verify(document, clearing) if not check.holds}


def resealed(clearing):
    return {**clearing, "sha256": document_sha256(clearing)}


def test_what_was_published_holds(round_):
    document, clearing = round_
    assert failures(document, clearing) == set()
    assert failures(document, json.loads(json.dumps(clearing))) == set()


def test_any_changed_digit_is_caught(round_):
    document, clearing = round_
    text = json.dumps(clearing)
    places = [found.start() for found in re.finditer(r"\d", text)]
    for place in places[:: max(1, len(places) // 150)]:
        digit = str((int(text[place]) + 1 + place % 8) % 10)
        if digit == text[place]:
            continue
        try:
            changed = json.loads(text[:place] + digit + text[place + 1 :])
        except ValueError:
            continue  # a leading zero: not JSON any more
        if changed != clearing:
            assert failures(document, changed)


NUMBERS = [
    *(("welfare",), ("bound",), ("lp_bound",), ("regret",), ("gap",)),
    *((("prices", at)) for at in (0, 1)),
    *((("payoffs", at)) for at in (0, 2)),
    *((("transfers_micro", at)) for at in (0, 1)),
    *(("allocation", at, key) for at in (0, 2) for key in ("gpu_hours", "msamples")),
    *(("allocation", at, "payment_micro") for at in (0, 1)),
    ("unplaced", 0, "would_run_at", "value"),
    *(("certificate", at, key) for at in (0, 5) for key in ("residual", "tolerance")),
]


@pytest.mark.parametrize("path", NUMBERS)
def test_a_number_that_matters_is_caught_under_a_new_digest(round_, path):
    document, clearing = round_
    for change in (lambda x: x + 1, lambda x: x * 1.01 + 0.01, lambda x: -x - 1):
        forged = copy.deepcopy(clearing)
        at = forged
        for key in path[:-1]:
            at = at[list(at)[key] if isinstance(at, dict) and isinstance(key, int) else key]
        last = (
            list(at)[path[-1]] if isinstance(at, dict) and isinstance(path[-1], int) else path[-1]
        )
        number = change(at[last])
        number = round(number) if isinstance(at[last], int) else number
        if number == at[last]:
            continue
        at[last] = number
        assert failures(document, resealed(forged))


@pytest.mark.parametrize(
    "forge",
    [
        lambda c: c.update(status="within_gap"),
        lambda c: c.update(status="empty"),
        lambda c: c.update(book_sha256="0" * 64),
        lambda c: c["allocation"].pop(),
        lambda c: c["allocation"].append(dict(c["allocation"][0])),
        lambda c: c["allocation"][0].update(pool="A.G" if "A.G" in c["prices"] else "A.H"),
        lambda c: c["allocation"][0].update(job="nobody"),
        lambda c: c["unplaced"].pop(),
        lambda c: c["unplaced"][0].update(reason="budget"),
        lambda c: c["unplaced"][0].update(why="because"),
        lambda c: c["certificate"].pop(3),
        lambda c: c["certificate"][0].update(holds=False),
        lambda c: c["certificate"].append(
            {"check": "blessing", "residual": 0, "tolerance": 1, "holds": True}
        ),
    ],
)
def test_a_forgery_is_caught_under_a_new_digest(round_, forge):
    document, clearing = round_
    forged = copy.deepcopy(clearing)
    forge(forged)
    assert failures(document, resealed(forged)) - {"sha256"}


def test_money_moved_between_sites_is_caught(round_):
    document, clearing = round_
    forged = copy.deepcopy(clearing)
    forged["transfers_micro"]["A"] += 5_000_000
    forged["transfers_micro"]["B"] -= 5_000_000
    assert "payoffs" in failures(document, resealed(forged))


def test_another_book_is_caught(round_):
    document, clearing = round_
    other = copy.deepcopy(document)
    other["jobs"][0]["value"] += 0.001
    assert "book_sha256" in failures(other, clearing)


@pytest.mark.parametrize(
    "clearing",
    [
        None,
        [],
        {},
        {"format": "hanse.clearing/1"},
        {"allocation": 3, "prices": [], "payoffs": None, "certificate": [7], "unplaced": {}},
    ],
)
def test_what_is_no_clearing_fails_by_format(clearing):
    [check] = verify(example("book_gangs"), clearing)
    assert (check.check, check.holds) == ("format", False)
    assert check.detail


def test_wrong_types_fail_by_format(round_):
    document, clearing = round_
    for key, value in (
        ("welfare", "much"),
        ("welfare", 1e400),
        ("prices", {}),
        ("payoffs", {**clearing["payoffs"], "Z": 1.0}),
        ("transfers_micro", dict.fromkeys(clearing["transfers_micro"], 0.5)),
        ("unplaced", ["x"]),
        ("extra", 1),
        ("sha256", None),
    ):
        forged = {**clearing, key: value}
        assert failures(document, forged) & {"format", "unplaced"}


def test_a_bad_book_is_an_error():
    with pytest.raises(BadBook):
        verify({}, {})


def test_a_loss_is_seen():
    """An accepted gang whose price passes its value, all other figures made to fit."""
    document = a_book(a_job(value=3.0, gang=2), pools=[a_pool(gpus=2)])
    clearing = clear(document)
    forged = copy.deepcopy(clearing)
    forged["prices"]["A.G"] = 3.5
    forged["allocation"][0]["payment_micro"] = 7_000_000
    assert {"no_loss"} <= failures(document, resealed(forged))


def test_verifying_imports_no_solver():
    code = (
        "import sys, economics.certificate, economics.settlement, economics.__main__\n"
        "print({m.split('.')[0] for m in sys.modules}"
        " & {'scipy', 'cvxpy', 'highspy', 'clarabel', 'osqp', 'django'})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
