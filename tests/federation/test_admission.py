"""Published rules of a site, alone: what they forbid and when a veto was announced."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from federation.admission import LESSONS, Published, Wish, announced, published


def test_a_rule_that_does_not_forbid_this_job_announces_nothing():
    wish = Wish("ann", "cnn", 60.0, 2)
    rules = Published("x", tenants_deny=("bob*",), max_gpus=2, max_runtime_s=60.0)
    for code in (*LESSONS, "made_up"):
        assert not announced(code=code, rules=rules, offered=2, wish=wish)
    denied = replace(rules, tenants_deny=("a*",))
    assert announced(code="tenant_not_admitted", rules=denied, offered=2, wish=wish)
    assert not announced(code="class_not_admitted", rules=denied, offered=2, wish=wish)


names = st.text("abc*-", min_size=1, max_size=6)


@given(
    rules=st.builds(
        Published,
        digest=st.text("0123456789abcdef", min_size=1, max_size=8),
        tenants_allow=st.lists(names, max_size=2).map(tuple),
        classes_deny=st.lists(names, max_size=2).map(tuple),
        max_gpus=st.none() | st.integers(1, 9),
        max_runtime_s=st.none() | st.floats(1, 1e6),
    ),
    wish=st.builds(Wish, names, names, st.floats(1, 1e6), st.integers(1, 9)),
)
def test_published_rules_survive_their_storage_and_agree_with_what_is_announced(rules, wish):
    again = published(rules.document())
    assert again == rules
    code = again.refusal(wish)
    assert code is None or announced(code=code, rules=again, offered=99, wish=wish)
