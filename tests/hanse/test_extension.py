"""Commands of other packages: there when installed, imported when used, said when broken."""

from __future__ import annotations

import sys
import textwrap
from importlib import metadata

import pytest
from typer.testing import CliRunner

from hanse.cli import BROKER_COMMANDS, app

SERVER = """
    import typer
    app = typer.Typer()
    @app.command()
    def up(port: int = 1): print("up on", port)
    @app.command()
    def sites(): print("sites")
"""
AGENT = """
    import typer
    app = typer.Typer(help="The site agent.")
    @app.command()
    def join(url: str): print("joined", url)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes packages that declare entry points, on a path of their own."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, source: str) -> str:
        module = f"made_up_{name}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        folder = tmp_path / f"{module}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(f"[hanse.commands]\n{name} = {module}:app\n")
        monkeypatch.delitem(sys.modules, module, raising=False)
        return module

    return install


@pytest.fixture
def only_made_up(monkeypatch):
    """Hides the entry points of the real installation, if there is one."""

    def made_up(**select):
        found = metadata.entry_points(**select)
        return [point for point in found if point.module.startswith("made_up_")]

    monkeypatch.setattr("hanse.extension.entry_points", made_up)


def run(*words):
    return CliRunner().invoke(app, list(words))


@pytest.mark.usefixtures("only_made_up")
class TestEntryPoints:
    def test_commands_of_the_server_stand_at_top_level(self, installed):
        installed("broker", SERVER)
        assert run("up", "--port", "7").stdout == "up on 7\n"
        assert run("sites").stdout == "sites\n"

    def test_any_other_entry_point_is_a_group_of_its_name(self, installed):
        installed("agent", AGENT)
        assert run("agent", "join", "x").stdout == "joined x\n"
        assert "The site agent." in run("agent", "--help").stdout

    def test_help_lists_them_all(self, installed):
        installed("agent", AGENT)
        installed("broker", SERVER)
        shown = run("--help").stdout
        assert all(f" {name} " in shown for name in ("agent", "up", "sites", "submit"))

    def test_our_own_commands_import_none_of_them(self, installed, tmp_path):
        agent, server = installed("agent", "raise SystemExit(9)"), installed("broker", "1 / 0")
        job = tmp_path / "job.yaml"
        job.write_text("name: j\nrun: x\nworkload: {class: c, samples: 1}\n"
                       "market: {value: 1, max_cost: 1}\n")  # fmt: skip
        assert run("submit", "--dry-run", str(job)).exit_code == 0
        assert not {agent, server} & sys.modules.keys()

    def test_a_missing_extra_is_named_and_help_still_works(self, installed):
        installed("broker", "import django_of_another_world")
        done = run("up", "--port", "7")
        assert done.exit_code == 1
        assert "pip install 'hanse[broker]'" in done.stderr
        assert "django_of_another_world" in done.stderr
        assert "submit" in run("--help").stdout

    def test_without_the_server_its_commands_say_what_to_install(self):
        for name in BROKER_COMMANDS:
            done = run(name)
            assert (done.exit_code, "pip install 'hanse[broker]'" in done.stderr) == (1, True)

    def test_where_commands_come_from_is_no_command(self, installed):
        installed("broker", SERVER)
        assert run("broker").exit_code == 2
        assert run("demo").exit_code == 2  # known by name, but this server has none

    def test_an_entry_point_cannot_take_the_place_of_our_own_command(self, installed):
        installed("submit", AGENT)
        assert "Read job files" in run("submit", "--help").stdout
