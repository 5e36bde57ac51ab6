"""The canonical text is spelled row type by row type; here it is spelled value by value."""

import hashlib
import json
import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from economics.canonical import DEEPEST, ROW_KEYS, canonical_json, document_sha256, number_text
from tests.economics.large import large_book
from tests.economics.varied import varied_book

quick = settings(max_examples=80, deadline=None, derandomize=True)

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.integers(-(10**6), 10**6).map(lambda micro: micro / 1e6),
    st.sampled_from([0.0, -0.0, 1e15, 1e16, 1e17, 1e21, 1e22, 1e-4, 1e-5, 1e-6, 1e-7, 5e-324]),
)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=20,
)
KEYS = st.sampled_from(["id", "job", "pool", "class", "gpus", "value", "%s", '"', "\u20ac"])
ROWS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=6)
DOCUMENTS = st.dictionaries(st.one_of(st.sampled_from(sorted(ROW_KEYS)), TEXTS), ROWS | VALUES)


def spelled_number(number):
    """ECMAScript's rule, from the decimal digits of the double."""
    if float(number) == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(float(number))).normalize().as_tuple()
    text, point = "".join(map(str, digits)), len(digits) + exponent
    if len(text) <= point <= 21:
        plain = text + "0" * (point - len(text))
    elif 0 < point <= 21:
        plain = f"{text[:point]}.{text[point:]}"
    elif -6 < point <= 0:
        plain = "0." + "0" * -point + text
    else:
        mantissa = text if len(text) == 1 else f"{text[0]}.{text[1:]}"
        plain = f"{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return ("-" if sign else "") + plain


def spelled(value):
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and abs(value) < 2**53:
        return str(value)
    if isinstance(value, int | float):
        return spelled_number(value)
    if isinstance(value, list):
        return f"[{','.join(map(spelled, value))}]"
    keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
    return "{" + ",".join(f"{spelled(key)}:{spelled(value[key])}" for key in keys) + "}"


def sorted_rows(document):
    def place(row, key):
        value = row.get(key, 1 if key == "gpus" else "")
        number = isinstance(value, int | float)
        return (float(value), "") if number else (math.inf, str(value))

    def rows(key, value):
        if key not in ROW_KEYS or not isinstance(value, list):
            return value
        if not all(isinstance(row, dict) for row in value):
            return value
        return sorted(value, key=lambda row: [place(row, name) for name in ROW_KEYS[key]])

    return {key: rows(key, value) for key, value in document.items()}


@quick
@given(DOCUMENTS)
def test_documents_are_spelled_as_value_by_value(document):
    assert canonical_json(document).decode() == spelled(sorted_rows(document))


@quick
@given(VALUES)
def test_values_are_spelled_as_value_by_value(value):
    assert canonical_json([value]).decode() == spelled([value])


@quick
@given(NUMBERS)
def test_numbers_are_spelled_by_their_decimal_digits(number):
    exact = isinstance(number, int) and abs(number) < 2**53
    assert number_text(number) == (str(number) if exact else spelled_number(number))


@pytest.mark.parametrize("gangs", [False, True])
def test_books_are_spelled_as_value_by_value(gangs):
    for document in (large_book(300, gangs=gangs), varied_book(7), varied_book(8)):
        text = spelled(sorted_rows(document))
        assert canonical_json(document).decode() == text
        assert document_sha256(document) == hashlib.sha256(text.encode()).hexdigest()


def test_nesting_ends_at_the_same_depth_in_rows_and_elsewhere():
    def nested(levels):
        value = 0
        for _ in range(levels):
            value = [value]
        return value

    for wrapped, around in ((lambda x: {"a": x}, 1), (lambda x: {"jobs": [{"id": x}]}, 3)):
        assert canonical_json(wrapped(nested(DEEPEST - around)))
        for levels in (DEEPEST - around + 1, 100_000):
            with pytest.raises(ValueError, match="nested too deeply"):
                canonical_json(wrapped(nested(levels)))


@pytest.mark.parametrize(
    "row",
    [{"id": 10**400}, {"id": math.nan}, {"id": "a", "value": -(10**400)}, {"id": "\ud800"}, {2: 1}],
)
def test_a_row_without_a_spelling_is_refused(row):
    with pytest.raises(ValueError, match=r"."):
        canonical_json({"jobs": [{"id": "b"}, row]})


def test_the_order_of_rows_and_keys_does_not_matter():
    document = large_book(50, gangs=True)
    turned = {key: document[key] for key in reversed(document)}
    turned["jobs"] = [dict(reversed(row.items())) for row in reversed(document["jobs"])]
    assert document_sha256(turned) == document_sha256(document)
