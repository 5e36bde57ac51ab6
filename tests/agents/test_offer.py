"""The offer says what is configured and measured, and changes only when that does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.clock import SystemClock, VirtualClock
from agents.config import Config
from agents.drivers.base import Phase
from agents.drivers.fake import FakeDriver
from agents.errors import ProbeFailed
from agents.journal import Journal
from agents.offer import Showcase, document
from agents.probes.throughput import (
    Measurement,
    Prober,
    fresh,
    load,
    questions,
    save,
)
from agents.protocol import AffinityOffer
from agents.service import driver_for, sweep_work
from tests.agents.making import a_config, a_task, steps, until

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
POOLS = [
    {"name": "a100", "gpu": "A100", "gpus": 2, "reserve": "1.20"},
    {"name": "v100", "gpu": "V100", "gpus": 4, "reserve": "0.40"},
]


def probed(folder: Path, command: list[str], seconds: float = 5.0, **changes: object) -> Config:
    classes = {"resnet50": {"probe": {"command": command, "seconds": seconds}}}
    return a_config(folder, classes=classes, **changes)


def test_declared_and_measured_speeds(tmp_path: Path) -> None:
    measured = AffinityOffer("a100", "bert", 3.5, 2, "probed")
    offer = document(a_config(tmp_path, offer={"note": "300 W"}), [measured])
    assert offer.affinities == (AffinityOffer("a100", "resnet50", 100.0), measured)
    assert (offer.note, offer.pools[0].reserve) == ("300 W", "1.20")


def test_an_offer_is_dated_by_the_brokers_clock_and_renewed_at_half_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite3")
    plain = document(a_config(tmp_path), [])
    showcase = Showcase(offer=plain, hours=24.0, journal=journal)
    assert showcase.current(None) is None
    first = showcase.current(NOON)
    assert first is not None
    assert first.valid_until == "2026-05-02T12:00:00.000Z"
    again = Showcase(offer=plain, hours=24.0, journal=journal)  # after a restart
    assert again.current(NOON + timedelta(hours=11)) == first
    later = again.current(NOON + timedelta(hours=13))
    assert later is not None
    assert later.valid_until == "2026-05-03T01:00:00.000Z"
    again.offer = replace(plain, note="new")
    changed = again.current(NOON + timedelta(hours=13))
    assert changed is not None
    assert changed.note == "new"
    journal.close()


def test_a_probe_measures_on_every_pool(tmp_path: Path) -> None:
    config = probed(tmp_path, ["probe"], pools=POOLS)
    clock = VirtualClock()
    speeds = {("a100", "resnet50"): 20.0, ("v100", "resnet50"): 5.0}
    driver = FakeDriver(clock=clock, speeds=speeds)
    prober = Prober(config=config, driver=driver, clock=clock, sleep=clock.advance)
    found = prober.answer(questions(config))
    assert [(m.pool, round(m.samples_per_s, 6)) for m in found] == [("a100", 20.0), ("v100", 5.0)]
    assert driver.known() == frozenset()
    save(tmp_path / "m.json", found)
    assert load(tmp_path / "m.json") == found
    assert load(tmp_path / "none.json") == []


def test_measurements_answer_until_they_are_old_or_the_question_changes(tmp_path: Path) -> None:
    config = probed(tmp_path, ["probe"])
    asked = questions(config)
    [question] = asked
    kept = [Measurement(question.digest, "a100", "resnet50", 1, 9.0, 5, NOON.isoformat())]
    hour = timedelta(hours=1)
    assert fresh(kept, asked, now=NOON + hour, max_age_hours=2) == kept
    assert fresh(kept, asked, now=NOON + 3 * hour, max_age_hours=2) == []
    other = questions(probed(tmp_path, ["probe", "-v"]))
    assert fresh(kept, other, now=NOON + hour, max_age_hours=2) == []


def test_a_probe_that_says_nothing_fails_with_its_last_words(tmp_path: Path) -> None:
    config = probed(tmp_path, ["sh", "-c", "echo no such model >&2; exit 1"])
    clock = SystemClock()
    driver = driver_for(config, root=tmp_path / "probes", site="", clock=clock)
    prober = Prober(config=config, driver=driver, clock=clock)
    [question] = questions(config)
    with pytest.raises(ProbeFailed, match=r"0 progress lines in 5 s .* no such model"):
        prober.measure(question)
    assert prober.answer([question]) == []
    assert driver.known() == frozenset()


def test_a_probe_that_never_ends_is_stopped_and_measured(tmp_path: Path) -> None:
    config = probed(tmp_path, ["sh", "-c", steps(10_000)], seconds=1.0)
    clock = SystemClock()
    driver = driver_for(config, root=tmp_path / "probes", site="", clock=clock)
    [found] = Prober(config=config, driver=driver, clock=clock).answer(questions(config))
    assert 5 < found.samples_per_s < 25
    assert found.offer().source == "probed"


def test_probes_at_once_and_what_a_stopped_agent_left(tmp_path: Path) -> None:
    command = ["sh", "-c", steps(10_000)]
    config = probed(tmp_path, command, seconds=1.0, pools=POOLS, probes={"parallel": True})
    clock = SystemClock()
    driver = driver_for(config, root=tmp_path / "probes", site="", clock=clock)
    prober = Prober(config=config, driver=driver, clock=clock)
    left = driver.start(a_task("probe-left", command="sleep 600"))
    prober.clear()
    assert driver.known() == frozenset()
    until(lambda: driver.poll(left).phase is Phase.OVER)
    began = clock.boottime()
    found = prober.answer(questions(config))
    assert [item.pool for item in found] == ["a100", "v100"]
    assert clock.boottime() - began < 1.9


def test_old_work_folders_are_removed_and_live_ones_kept(tmp_path: Path) -> None:
    config = a_config(tmp_path, driver={"keep_work_days": 0})
    for name in ("old", "live"):
        (config.driver.work / name).mkdir(parents=True)
    sweep_work(config, {"live"}, SystemClock())
    assert [folder.name for folder in config.driver.work.iterdir()] == ["live"]
