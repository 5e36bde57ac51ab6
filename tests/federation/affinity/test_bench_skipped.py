"""Benchmarks of measured tables say why they measured nothing, and still end with one object."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["interference", "planned_speeds"])
def test_without_data_the_last_line_is_one_object_with_the_reason(name):
    bare = {key: value for key, value in os.environ.items() if key != "HANSE_DATA"}
    command = [sys.executable, "-m", f"bench.{name}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=bare)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["bench"] == name
    assert said["skipped"].startswith("HANSE_DATA ")
