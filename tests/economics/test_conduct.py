"""Indices of market power and marks of abuse, on markets small enough to reckon by hand."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from economics.book import read_book
from economics.errors import BadBook
from economics.incentives.conduct import (
    Use,
    cap_regret,
    concentration,
    conduct_and_impact,
    pivotal,
    residual_supply,
    usual_reserves,
    withholding,
)
from economics.incentives.draws import draw
from economics.incentives.rings import Payment, Ring, Trade, off_market, ring_report
from economics.rounds import decide
from tests.economics.books import a_book, a_job, a_pool, clear, example


def two_sellers(reserve=1.0, more=4, **rules):
    """A and B offer 4 GPUs and `more`; C wants 6 hours at 4 and 6 at 2."""
    return a_book(
        a_job("high", "C", 4.0, demand=6.0),
        a_job("low", "C", 2.0, demand=6.0),
        pools=[a_pool("A", gpus=4, reserve=reserve), a_pool("B", gpus=more, reserve=1.0)],
        rules={"epsilon": 0.0, **rules},
    )


def by_name(rows):
    return {row.owner: row for row in rows}


def test_the_pivotal_supplier_index_is_what_is_lost_without_a_site():
    rows = by_name(pivotal(two_sellers()))
    assert rows["A"].value == pytest.approx(20.0)  # 6 hours gain 3 each, 2 gain 1
    assert rows["A"].without == pytest.approx(12.0)
    assert rows["A"].index == rows["B"].index == pytest.approx(0.4)
    assert rows["C"].index == pytest.approx(1.0)  # nobody else wants anything


def test_the_pivotal_supplier_index_of_the_worked_example():
    rows = by_name(pivotal(example("book_three_sites")))
    without = {"A": 95.8768, "B": 104.3670, "C": 71.0863}
    for site, value in without.items():
        assert rows[site].without == pytest.approx(value, abs=1e-3)
        assert rows[site].index == pytest.approx(1 - value / 169.7164, abs=1e-5)


def test_sites_of_one_owner_are_pivotal_together():
    rows = by_name(pivotal(two_sellers(), owners={"A": "one", "B": "one"}))
    assert sorted(rows) == ["C", "one"]
    assert rows["one"].index == pytest.approx(1.0)


def test_nobody_is_pivotal_where_nothing_is_worth_doing():
    rows = pivotal(a_book(a_job("j", "A", 0.5, demand=1.0)))
    assert [(row.value, row.index) for row in rows] == [(0.0, 0.0)]


@pytest.mark.parametrize(
    ("more", "indices", "flagged"),
    [
        (4, (0.5, 0.5), (True, True)),  # 8 hours sold, 4 offered by each
        (20, (20 / 12, 4 / 12), (False, True)),  # all 12 hours are sold
        (13, (13 / 12, 4 / 12), (True, True)),  # enough without A, but hardly
        (0, (0.0, 1.0), (True, False)),  # B offers nothing: the others are not short of it
    ],
)
def test_the_residual_supply_index_counts_what_the_others_offer(more, indices, flagged):
    book = two_sellers(more=more)
    rows = residual_supply(book, clear(book))
    assert [row.owner for row in rows] == ["A", "B"]
    assert tuple(row.index for row in rows) == pytest.approx(indices)
    assert tuple(row.flagged for row in rows) == flagged


def test_the_residual_supply_index_sees_through_owners_and_refuses_other_books():
    book = two_sellers(more=20)
    (row,) = residual_supply(book, clear(book), owners={"A": "one", "B": "one"})
    assert (row.owner, row.others, row.index, row.flagged) == ("one", 0.0, 0.0, True)
    with pytest.raises(BadBook, match="another book"):
        residual_supply(two_sellers(), clear(book))
    idle = a_book(a_job("j", "A", 0.5, demand=1.0))
    (row,) = residual_supply(idle, clear(idle))
    assert (row.index, row.flagged) == (None, False)


@pytest.mark.parametrize(("more", "index"), [(4, 5000.0), (12, 6250.0), (0, 10_000.0)])
def test_concentration_sums_squared_shares(more, index):
    (row,) = concentration(two_sellers(more=more))
    assert row.index == pytest.approx(index)
    assert row.owners == (1 if more == 0 else 2)
    (row,) = concentration(two_sellers(more=more), owners={"A": "one", "B": "one"})
    assert (row.index, row.owners, row.largest) == (10_000.0, 1, 1.0)


def test_concentration_of_a_type_nobody_offers():
    (row,) = concentration(a_book(a_job(), pools=[a_pool(gpus=0)]))
    assert (row.owners, row.index, row.largest) == (0, None, None)


def test_a_raised_reserve_that_moves_the_price_is_mitigated():
    """At 3 instead of 1, A sells 2 hours to the tenant at 4, who then pays 3 at B too."""
    found = conduct_and_impact(two_sellers(reserve=3.0), "A", {"A.G": 1.0})
    assert found.raised == ("A.G",)
    assert found.impact == pytest.approx(0.5)  # from 2 to 3 credits
    assert found.mitigate
    (row,) = found.types
    assert (row.name, row.price, row.otherwise) == ("G", pytest.approx(3.0), pytest.approx(2.0))


def test_a_raised_reserve_that_moves_nothing_is_let_be():
    """B has GPUs for everybody: A prices itself out and nobody pays more."""
    found = conduct_and_impact(two_sellers(reserve=3.0, more=20), "A", {"A.G": 1.0})
    assert found.raised == ("A.G",)
    assert found.impact == pytest.approx(0.0, abs=1e-6)
    assert not found.mitigate


def test_what_a_site_used_to_ask_is_a_reference():
    earlier = [two_sellers(reserve=reserve) for reserve in (1.0, 0.9, 3.0, 1.1, 1.0)]
    reference = usual_reserves(earlier, "A")
    assert reference == {"A.G": 1.0}
    assert conduct_and_impact(two_sellers(reserve=3.0), "A", reference).mitigate
    assert usual_reserves(earlier, "Z") == {}


def test_a_small_impact_is_below_the_threshold():
    book = two_sellers(reserve=2.05)  # 2 hours of A at 2.05, where it was 2
    found = conduct_and_impact(book, "A", {"A.G": 1.0})
    assert found.impact == pytest.approx(0.025)
    assert not found.mitigate
    assert conduct_and_impact(book, "A", {"A.G": 1.0}, threshold=0.01).mitigate


def test_a_reserve_that_shuts_a_type_off_has_an_impact():
    found = conduct_and_impact(two_sellers(reserve=9.0, more=0), "A", {"A.G": 1.0})
    assert found.impact == pytest.approx(9 / 4 - 1)  # nobody buys at 9; at 1 the price is 4
    assert found.mitigate


def test_a_price_from_nothing_is_an_impact():
    book = a_book(a_job("j", "B", 4.0, demand=1.0), pools=[a_pool("A", gpus=4, reserve=0.5)])
    found = conduct_and_impact(book, "A", {"A.G": 0.0})
    assert (found.impact, found.mitigate) == (None, True)


@pytest.mark.parametrize(
    ("site", "reference", "band"),
    [("A", {"A.G": 3.0}, 0.0), ("A", {"A.G": 2.8}, 0.1), ("B", {"A.G": 1.0}, 0.0), ("A", {}, 0.0)],
)
def test_a_reserve_within_its_band_is_not_looked_at(site, reference, band):
    found = conduct_and_impact(two_sellers(reserve=3.0), site, reference, band=band)
    assert (found.raised, found.impact, found.mitigate) == ((), 0.0, False)


def test_the_regret_of_a_price_cap_is_what_buyers_go_without():
    """Four hours for six wanted at 4: capped at 2.5, two more hours are wanted at a gain of 1.5."""
    book = two_sellers(more=0, price_cap={"A.G": 2.5, "B.G": 9.0})
    found = cap_regret(book)
    assert (found.capped, found.free, found.caused) == pytest.approx((3.0, 0.0, 3.0), abs=1e-6)
    assert found.binding == ("A.G",)
    assert [row.name for row in found.pools] == ["A.G", "B.G"]
    assert found.pools[0].price == pytest.approx(2.5)
    assert found.pools[0].otherwise == pytest.approx(4.0)


def test_a_cap_that_does_not_bind_causes_no_regret():
    found = cap_regret(two_sellers(price_cap={"A.G": 5.0}))
    assert (found.caused, found.binding) == (pytest.approx(0.0, abs=1e-6), ())
    assert cap_regret(two_sellers()).pools == ()


def test_withheld_is_what_is_neither_offered_nor_used():
    rows = withholding(
        [
            Use("B", "G", owned=100.0, offered=0.0, used_locally=95.0),  # busy itself
            Use("A", "G", owned=100.0, offered=10.0, used_locally=30.0),  # 60 hours stand idle
            Use("A", "H", owned=0.0, offered=0.0, used_locally=0.0),
            Use("C", "G", owned=100.0, offered=100.0, used_locally=0.0),
            Use("D", "G", owned=100.0, offered=50.0, used_locally=60.0),  # also what it offers
        ]
    )
    assert [(row.site, row.gpu, row.withheld, row.flagged) for row in rows] == [
        ("A", "G", 60.0, True),
        ("A", "H", 0.0, False),
        ("B", "G", 5.0, False),
        ("C", "G", 0.0, False),
        ("D", "G", 0.0, False),
    ]
    assert [row.utilisation for row in rows] == [pytest.approx(1 / 3), None, 0.95, None, 1.0]
    with pytest.raises(ValueError, match="A, G"):
        withholding([Use("A", "G", owned=1.0, offered=2.0, used_locally=0.0)])


def pays(*rows):
    return [Payment(payer, payee, amount) for payer, payee, amount in rows]


def test_money_that_only_goes_round_is_a_tight_ring():
    report = ring_report(pays(("C", "A", 10), ("A", "B", 10), ("B", "C", 10)))
    assert report.rings == (Ring(("A", "B", "C"), 10, 1.0, suspect=True),)
    assert (report.gross_micro, report.net_micro, report.circular_micro) == (30, 0, 30)


def test_trade_one_way_is_no_ring():
    report = ring_report(pays(("A", "B", 10), ("A", "C", 5), ("B", "C", 7)))
    assert report.rings == ()
    assert (report.gross_micro, report.net_micro, report.circular_micro) == (22, 15, 0)


def test_ordinary_trade_both_ways_is_a_ring_but_not_suspect():
    """The payments of the worked example: most of what A and B pay comes back by C."""
    rows = [("A", "B", 9_299_900), ("A", "C", 10_411_100), ("B", "C", 24_173_300)]
    report = ring_report(pays(*rows, ("C", "A", 66_992_000), ("C", "B", 64_567_300)))
    assert [ring.owners for ring in report.rings] == [("B", "C"), ("A", "C"), ("A", "B", "C")]
    assert not any(ring.suspect for ring in report.rings)
    assert report.circular_micro == pytest.approx(78_468_700, abs=1)
    assert report.net_micro == 96_974_900


def test_a_ring_is_loose_where_others_pay_its_members_or_are_paid_by_them():
    ring = [("A", "B", 10), ("B", "A", 10)]
    for more in (("C", "A", 90), ("A", "C", 90)):
        (found,) = ring_report(pays(*ring, more)).rings
        assert found == Ring(("A", "B"), 10, 0.1, suspect=False)


def test_sites_of_one_owner_are_one_and_their_trades_are_listed():
    payments = pays(("A1", "A2", 7), ("A2", "B", 5), ("B", "A1", 5))
    report = ring_report(payments, owners={"A1": "A", "A2": "A"})
    assert report.within_owner == (payments[0],)
    assert report.rings == (Ring(("A", "B"), 5, 1.0, suspect=True),)
    assert report.gross_micro == 10


def test_a_ring_longer_than_is_looked_for_still_goes_round():
    names = "ABCDE"
    payments = pays(*((names[at], names[(at + 1) % 5], 10) for at in range(5)))
    assert ring_report(payments).rings == ()
    assert ring_report(payments).circular_micro == 50
    assert len(ring_report(payments, longest=5).rings) == 1
    assert len(ring_report(payments, longest=5, least_micro=10).rings) == 1
    assert ring_report(payments, longest=5, least_micro=11).rings == ()


graphs = st.lists(
    st.tuples(st.sampled_from("ABCDE"), st.sampled_from("ABCDE"), st.integers(0, 50)), max_size=15
)


@given(graphs)
def test_what_goes_round_settles_nothing(rows):
    """Cancelling it leaves the balances; where all balances are zero, all of it goes round."""
    report = ring_report(pays(*rows))
    assert report.net_micro <= report.gross_micro - report.circular_micro
    for ring in report.rings:
        assert ring.amount_micro * len(ring.owners) <= report.circular_micro
        assert 0 < ring.tightness <= 1
    assert bool(report.circular_micro) == bool(ring_report(pays(*rows), longest=5).rings)
    back = ring_report(pays(*rows, *((payee, payer, amount) for payer, payee, amount in rows)))
    assert (back.net_micro, back.circular_micro) == (0, back.gross_micro)


@given(graphs, st.randoms(use_true_random=False))
def test_the_order_of_payments_does_not_matter(rows, random):
    mixed = list(rows)
    random.shuffle(mixed)
    assert ring_report(pays(*rows)) == ring_report(pays(*mixed))


def test_a_negative_payment_is_refused():
    with pytest.raises(ValueError, match="negative"):
        Payment("A", "B", -1)


def test_prices_off_the_market():
    rows = off_market(
        [
            Trade("d", 100, 0),
            Trade("a", 110, 100),  # at the edge
            Trade("b", 111, 100),
            Trade("c", 50, 100),
            Trade("e", 0, 0),
        ]
    )
    assert [(row.contract, row.off) for row in rows] == [
        ("b", pytest.approx(0.11)),
        ("c", pytest.approx(-0.5)),
        ("d", None),
    ]


def test_reports_are_plain_values():
    book = draw(2, sites=4)
    clearing = decide(read_book(book))
    payments = pays(("A", "B", 1), ("B", "A", 1))
    for report in (
        *pivotal(book),
        *residual_supply(book, clearing),
        *concentration(book),
        conduct_and_impact(book, "S01", {row["id"]: 0.1 for row in book["pools"]}),
        cap_regret(two_sellers(price_cap={"A.G": 1.5})),
        ring_report(payments),
    ):
        json.dumps(asdict(report), allow_nan=False)
