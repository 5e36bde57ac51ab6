"""The README's first command, and the summary that others read from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demo_trades_trains_settles_and_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hanse", "demo", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["jobs"] == summary["succeeded"] >= 12
    assert summary["sites_used"] == 3
    assert summary["rounds"] == summary["rounds_certified"] > 0
    assert summary["ledger_sum_micro"] == 0
    assert 0 <= summary["forecast_error_median"] < 1
    assert summary["seconds"] > 0
    for words in ("declared throttle", "Statements", "certificate", "Offered speed"):
        assert words in done.stderr
    assert not (tmp_path / ".hanse").exists() or not list((tmp_path / ".hanse").iterdir())


def test_the_readme_s_two_commands_are_targets_that_do_what_they_say():
    for target, does in (("demo", "hanse demo"), ("test", "pytest")):
        shown = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert does in shown.stdout
