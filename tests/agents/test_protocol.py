"""Every message comes back from JSON as it went, and nothing else gets in."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import protocol
from agents.protocol import BadMessage, canonical, decode, encode

MESSAGES = [
    protocol.JoinRequest,
    protocol.JoinReply,
    protocol.RotateReply,
    protocol.SyncRequest,
    protocol.SyncReply,
    protocol.ReportBatch,
    protocol.ReportReply,
    protocol.OfferDocument,
]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
WHOLE = st.integers(-(2**62), 2**62)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Whatever fits a type hint of the protocol."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        [inner] = [a for a in args if a is not type(None)]
        return st.none() | values(inner)
    if origin is tuple:
        return st.lists(values(args[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(TEXT, TEXT, max_size=3)
    if dataclasses.is_dataclass(hint):
        return messages(hint)
    simple = {int: WHOLE, float: st.integers(-(2**53), 2**53).map(lambda n: n / 8), str: TEXT}
    simple[bool] = st.booleans()
    return simple[hint] if hint in simple else st.sampled_from(list(hint))


def messages(kind: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{f.name: values(hints[f.name]) for f in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", MESSAGES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_round_trip(kind: Any, data: st.DataObject) -> None:
    message = data.draw(messages(kind))
    assert decode(kind, json.loads(canonical(encode(message)))) == message


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(MESSAGES),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
)
def test_any_json_is_read_or_refused(kind: Any, value: Any) -> None:
    refused: BadMessage | None = None
    try:
        decode(kind, value)
    except BadMessage as error:
        refused = error
    assert refused is None or (refused.path and refused.why)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items: list[tuple[Any, Any]] = list(value.items()) if isinstance(value, dict) else []
    if isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        found += paths(item, (*at, key))
    return found


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with one place changed."""
    copy = json.loads(json.dumps(value))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return copy


REPLY = {
    "protocol": "p",
    "server_time": "t",
    "renew_s": 60,
    "orders": "x",
    "leases": [
        {
            "attempt": "a",
            "pool": "p",
            "gpus": 1,
            "contract": "c",
            "contract_samples": 1,
            "fence_s": 1.5,
            "spec": {
                "job": "j",
                "name": "n",
                "job_class": "k",
                "command": "true",
                "setup": "",
                "env": {"A": "1"},
                "samples_done": 0,
                "samples_wanted": 1,
                "probe": False,
                "max_runtime_s": 1,
                "grace_s": 1,
                "log_cap_bytes": 1,
            },
        }
    ],
    "revokes": [{"attempt": "a", "code": "c", "why": "w", "grace_s": 1}],
    "forget": ["a"],
    "asks": ["offer"],
}


BAD = [None, object(), [], {"x": 1}, float("nan"), float("inf"), 10**400, "\x00", "\ud800"]
LISTS = {("leases",), ("revokes",), ("forget",), ("asks",)}
ENV = ("leases", 0, "spec", "env")


@pytest.mark.parametrize("path", paths(REPLY), ids=str)
def test_a_bad_value_anywhere_is_refused_with_its_path(path: tuple[Any, ...]) -> None:
    decode(protocol.SyncReply, REPLY)
    for bad in BAD:
        if (bad == [] and path in LISTS) or (bad == {"x": 1} and path == ENV):
            continue
        value = put(REPLY, path, bad)
        with pytest.raises(BadMessage) as caught:
            decode(protocol.SyncReply, value)
        assert str(path[0]) in caught.value.path


@pytest.mark.parametrize("path", [p for p in paths(REPLY) if isinstance(p[-1], str)], ids=str)
def test_a_missing_and_an_unknown_field_are_refused(path: tuple[Any, ...]) -> None:
    if "env" in path[:-1]:
        return
    value = json.loads(json.dumps(REPLY))
    place = value
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    with pytest.raises(BadMessage, match="missing"):
        decode(protocol.SyncReply, value)
    place[path[-1] + "_"] = 1
    with pytest.raises(BadMessage, match="unknown field"):
        decode(protocol.SyncReply, value)


def test_limits_of_length() -> None:
    long = "x" * (protocol.MAX_TEXT + 1)
    with pytest.raises(BadMessage, match="at most"):
        decode(protocol.SyncReply, put(REPLY, ("orders",), long))
    decode(protocol.SyncReply, put(REPLY, ("leases", 0, "spec", "command"), long))


def test_the_digest_of_an_offer_is_of_its_content() -> None:
    offer = protocol.OfferDocument((protocol.PoolOffer("a", "A100", 2, "1.2"),), ())
    again = decode(protocol.OfferDocument, json.loads(json.dumps(encode(offer))))
    assert offer.digest() == again.digest()
    assert dataclasses.replace(offer, note="x").digest() != offer.digest()
