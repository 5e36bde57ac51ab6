"""One spelling for every document (RFC 8785), and strict reading."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from economics.canonical import (
    canonical_json,
    document_sha256,
    number_text,
    parse_json,
)
from economics.errors import BadBook


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-7, "-7"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-9, "1.5e-9"),
        (123456789.125, "123456789.125"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (333333333.33333329, "333333333.3333333"),
        (9007199254740994.0, "9007199254740994"),
        (2**60, "1152921504606847000"),
    ],
)
def test_numbers_are_written_as_ecmascript_does(number, text):
    assert number_text(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back(number):
    assert float(number_text(number)) == number


def test_texts_and_keys():
    document = {
        "\u20ac": '\u20ac$\x0f\nA\'B"\\\\"/',
        "\r": 1,
        "1": [True, None, 0.5],
        "\U0001f600": 2,
    }
    assert canonical_json(document).decode() == (
        '{"\\r":1,"1":[true,null,0.5],"\u20ac":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/","\U0001f600":2}'
    )


def test_rows_are_sorted_by_id_and_other_lists_are_not():
    one = {"pools": [{"id": "b"}, {"id": "a"}], "note": [2, 1]}
    other = {"note": [2, 1], "pools": [{"id": "a"}, {"id": "b"}]}
    assert canonical_json(one) == canonical_json(other)
    assert b"[2,1]" in canonical_json(one)


def test_affinity_rows_are_sorted_by_size_as_a_number():
    rows = [{"pool": "p", "class": "c", "gpus": gpus} for gpus in (10, 9)]
    rows.append({"pool": "p", "class": "c"})
    text = canonical_json({"affinity": rows}).decode()
    assert text.index('{"class":"c","pool":"p"}') < text.index('"gpus":9') < text.index('"gpus":10')


def test_the_digest_leaves_itself_out():
    assert document_sha256({"a": 1, "sha256": "x"}) == document_sha256({"a": 1.0})
    assert document_sha256({"a": 1}) != document_sha256({"a": 2})


@pytest.mark.parametrize(
    "document", [math.nan, math.inf, {"a": {1, 2}}, {1: 2}, "\ud800", object(), [[[]]] * 2]
)
def test_what_has_no_spelling_is_refused(document):
    nested = document
    for _ in range(40 if document == [[[]]] * 2 else 0):
        nested = [nested]
    with pytest.raises(ValueError, match=r"."):
        canonical_json(nested)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 2}', "duplicate key 'a'"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ("[Infinity]", "Infinity is not a JSON number"),
        ("[-Infinity]", "not a JSON number"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("1" * 10_000, "is not JSON"),
    ],
)
def test_strict_reading(text, why):
    with pytest.raises(BadBook, match=why):
        parse_json(text)


def test_reading_what_is_sound():
    assert parse_json(b'{"a": [1, 2.5, "x", null]}') == {"a": [1, 2.5, "x", None]}
