"""Pages that scripts write are what the scripts would write now."""

import dataclasses

import pytest

from agents import protocol
from federation.services.story import MACHINES
from tests.docs.reading import ROOT, generator

SCRIPTS = ("generate_machines", "generate_protocol", "generate_cli")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_generated_page_is_up_to_date(name):
    script = generator(name)
    assert script.PAGE.read_text() == script.text(), f"run: python docs/{name}.py"


def test_every_machine_has_a_diagram_with_every_arrow():
    page = (ROOT / "docs" / "reference" / "state-machines.md").read_text()
    modules = generator("generate_machines").machine_modules()
    assert {module.MACHINE.name for module in modules} == set(MACHINES)
    for machine in MACHINES.values():
        section = page.partition(f"\n## {machine.name.capitalize()}\n")[2].partition("\n## ")[0]
        for (before, event), after in machine.transitions.items():
            [arrow] = [
                line
                for line in section.splitlines()
                if line.strip().startswith(f"{before.value} --> {after.value}:")
            ]
            assert event in arrow.partition(": ")[2].split(", ")
        for state in machine.states:
            assert f"| `{state.value}` | " in section
            assert f"| `{state.value}` |  |" not in section, "a state without a meaning"


def test_every_field_of_the_protocol_is_on_its_page():
    page = (ROOT / "docs" / "reference" / "protocol.md").read_text()
    messages = [kind for kind in vars(protocol).values() if dataclasses.is_dataclass(kind)]
    assert len(messages) > 15
    for message in messages:
        section = page.partition(f"\n## {message.__name__}\n")[2].partition("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        names = [row.split("`")[1] for row in rows]
        assert names == [field.name for field in dataclasses.fields(message)]


def test_the_round_in_the_architecture_is_part_of_the_table():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = MACHINES["round"].transitions
    states = MACHINES["round"].states
    arrows = [line.strip() for line in text.splitlines() if " --> " in line and "[*]" not in line]
    assert arrows
    for arrow in arrows:
        before, _, rest = arrow.partition(" --> ")
        after, _, event = rest.partition(": ")
        assert table[states(before), event] == states(after)
