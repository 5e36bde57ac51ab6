"""A site's own rules: who, what, when, how much, how long."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agents import policy
from agents.errors import ConfigError
from agents.policy import Policy, Wish, parse, veto

WISH = Wish("vision-lab", "resnet50-b64", "a100", 8, 4, 3600.0)
MONDAY_NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

EXAMPLE = policy.__doc__.split("left out:\n")[1]  # type: ignore[union-attr]


def code(rules: Policy, wish: Wish = WISH, now: datetime = MONDAY_NOON) -> str | None:
    found = veto(rules, wish, now)
    return None if found is None else found.code


def test_an_empty_policy_forbids_nothing():
    assert code(Policy()) is None
    assert code(Policy(), replace(WISH, tenant="", max_runtime_s=1e9)) is None


def test_the_example_of_the_documentation_is_read(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text(EXAMPLE, encoding="utf-8")
    rules = policy.load(file)
    assert rules.tenants.deny == ("vision-lab-guests",)
    assert (rules.keep_gpus, rules.keep_part) == ({"a100": 2}, {"v100": 0.25})
    assert (rules.max_walltime_s, rules.max_gpus, rules.time_zone) == (86400, 16, "Europe/Berlin")
    assert code(rules) == "outside_hours"
    night = datetime(2026, 11, 23, 21, 30, tzinfo=UTC)
    assert code(rules, now=night) is None
    assert code(rules, replace(WISH, tenant="vision-lab-guests"), night) == "tenant_not_admitted"
    assert code(rules, replace(WISH, tenant="chem-2"), night) is None
    assert code(rules, replace(WISH, tenant=""), night) == "tenant_not_admitted"
    assert code(rules, replace(WISH, job_class="crypto-1"), night) == "class_not_admitted"
    assert code(rules, replace(WISH, gpus=7), night) == "kept_for_local_users"
    assert code(rules, replace(WISH, max_runtime_s=86401), night) == "walltime_too_long"
    big = replace(WISH, pool="h100", pool_gpus=32, gpus=17)
    assert code(rules, big, night) == "too_many_gpus"


@pytest.mark.parametrize(
    ("text", "moment", "inside"),
    [
        ("mon-fri 18:00-08:00", "2026-11-23T18:00", True),  # Monday
        ("mon-fri 18:00-08:00", "2026-11-23T17:59", False),
        ("mon-fri 18:00-08:00", "2026-11-23T07:59", False),  # Sunday's night is not named
        ("mon-fri 18:00-08:00", "2026-11-28T07:59", True),  # Friday's night goes on to Saturday
        ("mon-fri 18:00-08:00", "2026-11-28T08:00", False),
        ("sat-sun 00:00-24:00", "2026-11-29T23:59", True),
        ("sat-sun 00:00-24:00", "2026-11-30T00:00", False),
        ("sun-mon 10:00-11:00", "2026-11-23T10:30", True),
        ("sun-mon 10:00-11:00", "2026-11-24T10:30", False),
        ("wed 10:00-11:00", "2026-11-25T10:00", True),
    ],
)
def test_hours_hold_their_days_and_the_nights_that_follow(text, moment, inside):
    rules = parse({"hours": [text]})
    assert rules.open_at(datetime.fromisoformat(moment).replace(tzinfo=UTC)) is inside


def test_hours_are_those_of_the_site_through_summer_time():
    rules = parse({"hours": ["mon-sun 02:00-03:00"], "time_zone": "Europe/Berlin"})
    assert rules.open_at(datetime(2026, 7, 1, 0, 30, tzinfo=UTC))
    assert not rules.open_at(datetime(2026, 12, 1, 0, 30, tzinfo=UTC))
    assert rules.open_at(datetime(2026, 12, 1, 1, 30, tzinfo=UTC))


def test_a_kept_part_is_rounded_in_favour_of_local_users():
    rules = parse({"keep": {"a100": "30%", "v100": 3}})
    assert rules.offered("a100", 8) == 5
    assert rules.offered("a100", 1) == 0
    assert (rules.offered("v100", 2), rules.offered("h100", 4)) == (0, 4)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([], "config"),
        ({"tenant": {}}, "tenant"),
        ({"tenants": ["a"]}, "tenants"),
        ({"tenants": {"allow": "a"}}, "tenants.allow"),
        ({"tenants": {"allow": ["a b"]}}, "tenants.allow[0]"),
        ({"hours": ["night"]}, "hours[0]"),
        ({"hours": ["mon 25:00-26:00"]}, "hours[0]"),
        ({"hours": ["mon 10:00-10:00"]}, "hours[0]"),
        ({"hours": ["foo-bar 10:00-11:00"]}, "hours[0]"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"keep": {"a100": "half"}}, "keep.a100"),
        ({"keep": {"a100": -1}}, "keep.a100"),
        ({"keep": {"a100": "101%"}}, "keep.a100"),
        ({"max_walltime_hours": 0}, "max_walltime_hours"),
        ({"max_gpus": True}, "max_gpus"),
    ],
)
def test_what_cannot_be_a_policy_names_its_key(value, path):
    with pytest.raises(ConfigError) as refused:
        parse(value)
    assert str(refused.value).startswith(path)


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path):
    for content in (b"\xff\xfe", b"a: [", b"a: !!python/object:os.system {}"):
        file = tmp_path / "policy.yaml"
        file.write_bytes(content)
        with pytest.raises(ConfigError):
            policy.load(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        policy.load(tmp_path / "none.yaml")
