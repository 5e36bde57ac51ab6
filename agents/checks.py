"""What `hanse agent selftest` and `hanse agent doctor` do and print: a line for each look."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from agents.attempt import Attempt
from agents.clock import SystemClock
from agents.config import Config
from agents.doctor.examination import examine
from agents.doctor.findings import Finding, Grade
from agents.drivers.base import Driver
from agents.journal import Journal
from agents.protocol import encode
from agents.selftest import Outcome, Selftest, Step
from agents.service import driver_for
from agents.state import StateFolder

COLOURS: dict[Grade | Outcome, str] = {
    **{Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red"},
    **{Outcome.WORKS: "green", Outcome.SKIPPED: "yellow", Outcome.FAILS: "bold red"},
}
WIDTH = 16  #: of the column that names what was looked at


def selftest(config: Config, *, limit_s: float, as_json: bool) -> bool:
    """Run it and print the steps as they come; True when nothing failed."""
    folder = StateFolder(config.state)
    folder.prepare()
    root = folder.root / "selftest"
    test = Selftest(
        config=config,
        make=_maker(config, root),
        clock=SystemClock(),
        attempts=_attempts(folder),
        nonce=secrets.token_hex(4),
        limit_s=limit_s,
    )
    steps = _shown(test.run(), None if as_json else _say_step)
    with suppress(OSError):  # the driver's own folder for it; empty unless a step failed
        root.rmdir()
    good = all(step.outcome is not Outcome.FAILS for step in steps)
    _close(good, "steps", steps, as_json=as_json)
    return good


def doctor(config: Config, file: Path, *, as_json: bool) -> bool:
    """Look at everything and print the findings as they come; True when nothing fails."""
    root = config.state / "selftest"
    looks = examine(config, file, SystemClock(), _maker(config, root))
    findings = _shown(looks, None if as_json else _say_finding)
    with suppress(OSError):
        root.rmdir()
    good = all(finding.grade is not Grade.FAIL for finding in findings)
    _close(good, "findings", findings, as_json=as_json)
    return good


def _maker(config: Config, root: Path) -> Callable[[], Driver]:
    """No site's name: its attempts are kept apart from those of the agent's own driver."""
    return lambda: driver_for(config, root=root, site="", clock=SystemClock())


def _attempts(folder: StateFolder) -> list[Attempt]:
    """As the journal of a running agent has them."""
    if not folder.journal.exists():
        return []
    journal = Journal(folder.journal, read_only=True)
    try:
        return journal.attempts()
    finally:
        journal.close()


def _shown(found: Iterable[Any], say: Callable[[Any], None] | None) -> list[Any]:
    kept = []
    for one in found:
        if say is not None:
            say(one)
        kept.append(one)
    return kept


def _close(good: bool, name: str, found: list[Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"ok": good, name: encode(found)}, indent=2))
        return
    bad = sum(one.why != "" for one in found if isinstance(one, Step))
    bad += sum(one.fix != "" for one in found if isinstance(one, Finding))
    typer.echo(
        f"{len(found)} {name}, {bad} to look at" if bad else f"{len(found)} {name}, all fine"
    )


def _say_step(step: Step) -> None:
    taken = "" if step.outcome is Outcome.SKIPPED else f"{step.seconds:7.2f} s"
    _say(step.outcome, f"{step.pool[:WIDTH]:{WIDTH}} {step.name:10} {taken:9}  {step.why}")


def _say_finding(finding: Finding) -> None:
    fix = f" -> {finding.fix}" if finding.fix else ""
    _say(finding.grade, f"{finding.check:{WIDTH}} {finding.text}{fix}")


def _say(grade: Grade | Outcome, line: str) -> None:
    """No markup and no control characters: parts of the line come from other programs."""
    plain = "".join(c if c.isprintable() else " " for c in line).rstrip()
    text = Text.assemble((f"{grade:8}", COLOURS[grade]), plain)
    Console(soft_wrap=True).print(text)
