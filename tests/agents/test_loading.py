"""Drivers are found by name: ours, and those of other packages."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from agents.config import Config
from agents.drivers import loading
from agents.drivers.fake import FakeDriver
from agents.drivers.loading import Kind
from agents.errors import ConfigError
from agents.service import driver_for
from tests.agents.making import ROOT, a_config


def test_the_names_of_our_own_are_the_packages_entry_points() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][loading.GROUP] == loading.OWN
    assert loading.names()[: len(loading.OWN)] == list(loading.OWN)


@pytest.mark.parametrize("name", ["process", "fake", "slurm"])
def test_each_has_a_kind(name: str) -> None:
    assert isinstance(loading.find(name), Kind)


def test_what_is_not_there_is_refused_with_what_is(tmp_path: Path) -> None:
    assert loading.find("condor") is None
    with pytest.raises(ConfigError, match=r"process, fake.* is expected"):
        a_config(tmp_path, driver={"kind": "condor"})
    with pytest.raises(ConfigError, match="unknown key"):
        a_config(tmp_path, driver={"kind": "fake", "shared": "x"})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package, with a driver of its own and one that would like to be ours."""
    info = tmp_path / "site" / "other-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{loading.GROUP}]\ncondor = other_drivers:KIND\nprocess = other_drivers:KIND\n"
    )

    def make(config: Config, root: Path, site: str, clock: object) -> FakeDriver:
        raise AssertionError(config.driver.own)

    module = ModuleType("other_drivers")
    module.KIND = Kind(make, keys="pool", read=lambda item, folder, pools: item["pool"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_drivers", module)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.mark.usefixtures("installed")
def test_another_package_adds_a_kind_and_takes_none(tmp_path: Path) -> None:
    assert "condor" in loading.names()
    config = a_config(tmp_path, driver={"kind": "condor", "pool": "night"})
    assert config.driver.own == "night"
    with pytest.raises(AssertionError, match="night"):
        driver_for(config, root=tmp_path, site="", clock=None)  # type: ignore[arg-type]
    ours = loading.find("process")
    assert ours is not None
    assert ours.make.__module__ == "agents.drivers.process"
