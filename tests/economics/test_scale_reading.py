"""Rows are read all at once when all is well, and one by one when not: with the same result."""

import copy
import json
import math

import numpy as np
import pytest

from economics.book import read_book
from economics.bulk import sound_jobs
from economics.certificate import verify
from economics.errors import BadBook
from economics.published import read_published
from economics.rows import JOB_KEYS, read_jobs
from economics.schema import MOST_LISTED, Fields, Problems
from tests.economics.books import a_book, a_job, a_pool, clear, example
from tests.economics.large import large_book
from tests.economics.varied import Draw, an_award, varied_book

ODD = [
    *(None, True, "", "x", -1, -0.0, 0, 1.5, 2.0, 1e300, -(10**400), 10**400, math.nan, math.inf),
    *([], {}, [1], ["x"], [[1]], {"a": 1}, "\ud800", [2, 2], [2.0], [True], {1: 2}, (1, 2)),
    *(10**15, 10**15 + 1, [0], [-1], {"S0.H": 1}, {"S0.H": -1}, ["S0.H"], ["S0.H", "S0.H"]),
]


def one_by_one(document):
    """The jobs by id, and what was wrong."""
    problems = Problems()
    pools = {row["id"] for row in document["pools"]}
    fields = Fields({"jobs": document["jobs"]}, "", problems, ("jobs",))
    rows = sorted(read_jobs(fields, pools, problems), key=lambda row: row.id)
    try:
        problems.raise_if_any()
    except BadBook as refused:
        return rows, refused.problems
    return rows, ()


def all_at_once(document):
    rows = sound_jobs(document["jobs"], {row["id"] for row in document["pools"]})
    return None if rows is None else sorted(rows, key=lambda row: row.id)


def test_sound_rows_are_read_alike_both_ways():
    documents = [large_book(300, gangs=gangs) for gangs in (False, True)]
    for document in documents + [varied_book(seed) for seed in range(100)]:
        rows, problems = one_by_one(document)
        assert problems == ()
        found = all_at_once(document)
        assert found == rows
        assert [list(map(type, row)) for row in found] == [list(map(type, row)) for row in rows]


def test_odd_rows_are_left_to_the_closer_look():
    """Whatever is put wherever: refused, or read alike."""
    accepted = refused = 0
    for seed in range(1500):
        document, draw = varied_book(seed % 50 + 3), Draw(seed)
        if not document["jobs"]:
            continue
        job = draw.random.choice(document["jobs"])
        job[draw.random.choice([*JOB_KEYS, "colour"])] = draw.random.choice(ODD)
        if draw.happens(0.2):
            del job[draw.random.choice(sorted(job))]
        rows, problems = one_by_one(document)
        found = all_at_once(document)
        assert found is None or (found == rows and not problems)
        refused += bool(problems)
        accepted += found is not None
    assert refused > 500
    assert accepted > 100


@pytest.mark.parametrize("rows", [None, {}, "jobs", [1], [[]], [a_job("j"), None]])
def test_what_is_no_list_of_rows_is_left_to_the_closer_look(rows):
    assert sound_jobs(rows, {"A.G"}) is None


def test_a_duplicate_among_many_is_named_by_its_place():
    document = large_book(2_000)
    document["jobs"].append({**document["jobs"][5], "value": 1.0})
    with pytest.raises(BadBook, match=r"^jobs\[2000\]: duplicate job-0000005$"):
        read_book(document)


def test_one_bad_row_among_many_is_named_by_its_path():
    document = large_book(2_000, gangs=True)
    document["jobs"][777]["budget"] = math.nan
    with pytest.raises(BadBook, match=r"^jobs\[777\]\.budget: must be finite$"):
        read_book(document)


def test_a_thoroughly_bad_book_does_not_print_forever():
    document = large_book(5_000)
    for row in document["jobs"]:
        row["value"] = -1
    with pytest.raises(BadBook) as refused:
        read_book(document)
    lines = str(refused.value).splitlines()
    assert len(lines) == MOST_LISTED + 1
    assert lines[0] == "jobs[0].value: must not be negative, is -1"
    assert lines[-1] == "...: and 4000 more problems"


def test_a_huge_number_is_one_short_line():
    document = a_book(a_job(value=-(10**4000)), a_job("k", gang=-(10**4000)))
    with pytest.raises(BadBook) as refused:
        read_book(document)
    assert str(refused.value) == (
        "jobs[0].value: must not be negative\njobs[1].gang: must not be negative"
    )


PARAMETERS = [
    ({"policy": "las", "parameters": {"thresholds": [1, 2.5]}}, {"thresholds": (1.0, 2.5)}),
    ({"policy": "allox", "parameters": {"alpha": 0.5}}, {"alpha": 0.5}),
    ({"policy": "gittins", "parameters": {"quantum": 9, "samples": []}}, None),
    ({}, {}),
]


@pytest.mark.parametrize(("rules", "parameters"), PARAMETERS)
def test_parameters_of_a_policy_are_read(rules, parameters):
    if parameters is None:
        parameters = {"quantum": 9.0, "samples": ()}
    assert read_book(a_book(a_job(), rules=rules)).rules.parameters == parameters


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ({"parameters": []}, "rules.parameters: must be an object"),
        (
            {"parameters": {"alpha": 1}},
            "rules.parameters.alpha: unknown parameter of policy 'surplus'; known: none",
        ),
        (
            {"policy": "las", "parameters": {"alpha": 1}},
            "rules.parameters.alpha: unknown parameter of policy 'las'; known: thresholds",
        ),
        (
            {"policy": "las", "parameters": {"thresholds": [1, "x"]}},
            "rules.parameters.thresholds[1]: must be a number",
        ),
        (
            {"policy": "allox", "parameters": {"alpha": {}}},
            "rules.parameters.alpha: must be a number",
        ),
        (
            {"policy": "allox", "parameters": {"alpha": math.nan}},
            "rules.parameters.alpha: must be finite",
        ),
    ],
)
def test_bad_parameters_are_refused_by_their_path(rules, why):
    with pytest.raises(BadBook) as refused:
        read_book(a_book(a_job(), rules=rules))
    assert str(refused.value) == why


def test_what_policies_need_of_a_job_is_read():
    more = {"weight": 2, "attained_gpu_s": 7.5, "deadline_h": 3, "tenant": "t"}
    [row, plain] = read_book(a_book(a_job("a", **more), a_job("b"))).jobs
    assert (row.weight, row.attained_gpu_s, row.deadline_h, row.tenant) == (2.0, 7.5, 3.0, "t")
    assert (plain.weight, plain.attained_gpu_s, plain.tenant) == (1.0, 0.0, "")
    assert math.isinf(plain.deadline_h)
    with pytest.raises(BadBook, match=r"^jobs\[0\]\.weight: must be a positive number$"):
        read_book(a_book(a_job(weight=0)))


def published_lines(book, seed):
    """Lines of an award as written, some of them strangers, and the column each is of."""
    draw, market = Draw(seed), book.market
    share, price = an_award(book, seed)
    rows, columns = [], []
    for column in np.flatnonzero(share).tolist():
        hours = round(float(market.gpu_hours[column] * share[column]), 9)
        rows.append(
            {
                "job": book.jobs[market.job[column]].id,
                "pool": book.pools[market.pool[column]].id,
                "gpu_hours": hours,
                "msamples": round(float(market.msamples[column] * share[column]), 9),
                "payment_micro": draw.random.randint(0, 10**7),
            }
        )
        columns.append(column)
        if draw.happens(0.2):
            rows.append({**rows[-1], draw.random.choice(("job", "pool")): "nobody"})
            columns.append(None)
    return rows, columns, price


def test_lines_find_their_columns():
    for seed in range(60):
        book = read_book(varied_book(seed))
        rows, columns, price = published_lines(book, seed)
        clearing = {
            "format": "hanse.clearing/1",
            **dict.fromkeys(("book_sha256", "status", "sha256"), "-"),
            **dict.fromkeys(("welfare", "bound", "gap", "lp_bound", "regret"), 0.0),
            "prices": {row.id: float(price[at]) for at, row in enumerate(book.pools)},
            "allocation": rows,
            "payoffs": dict.fromkeys(book.sites, 0.0),
            "transfers_micro": dict.fromkeys(book.sites, 0),
            "unplaced": [],
            "certificate": [],
        }
        published = read_published(book, clearing)
        pairs = zip(columns, rows, strict=True)
        placed = {column: row for column, row in pairs if column is not None}
        for column, row in placed.items():
            used = book.market.gpu_hours[column] * published.share[column]
            assert used == pytest.approx(row["gpu_hours"])
            assert published.paid_micro[column] == row["payment_micro"]
        assert np.flatnonzero(published.share).tolist() == list(placed)
        assert published.strangers == columns.count(None)
        assert published.msamples_off < 1e-6
        # Read one by one: a whole number of hours written as such is nothing unusual, a tuple is.
        slowly = read_published(book, {**clearing, "allocation": tuple(rows)})
        assert slowly.lines == published.lines
        assert (slowly.share == published.share).all()


def test_dues_keep_to_the_purse():
    """Two lines of a job with 10 credits: the second owes what the first left."""
    document = a_book(
        a_job("j", value=4.0, demand=8.0, budget=10.0), pools=[a_pool("A"), a_pool("B")]
    )
    book = read_book(document)
    lines = [
        {"job": "j", "pool": pool, "gpu_hours": 1.25, "msamples": 1.25, "payment_micro": paid}
        for pool, paid in (("A.G", 8_000_000), ("B.G", 3_000_000))
    ]
    clearing = {**clear(document), "prices": {"A.G": 6.4, "B.G": 6.4}, "allocation": lines}
    published = read_published(book, clearing)
    assert published.due == (8_000_000, 2_000_000)
    assert published.overspent_micro == 1_000_000


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("welfare",), 10**400),
        (("prices", "A.H"), -(10**400)),
        (("allocation", 0, "payment_micro"), 10**24),
        (("allocation", 0, "gpu_hours"), 1e15),
        (("prices", "A.H"), 1e15),
        (("transfers_micro", "A"), 10**24),
        (("unplaced", 0, "job"), 10**400),
        (("unplaced", 0), 10**400),
    ],
)
def test_absurd_numbers_fail_a_check_and_nothing_else(path, value):
    document = example("book_gangs")
    forged = copy.deepcopy(clear(document))
    at = forged
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert not all(check.holds for check in verify(document, forged))


def test_a_document_reads_the_same_after_writing():
    document = large_book(200, gangs=True)
    assert read_book(json.loads(json.dumps(document))).sha256 == read_book(document).sha256
