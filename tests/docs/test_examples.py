"""Files that pages show can be read by the code that would read them."""

import re
import textwrap

import pytest
import yaml

from agents import config, policy
from hanse import jobfile
from tests.docs.reading import DOCS, blocks, named, pages

YAML = [b for page in pages() for b in blocks(page) if b.language == "yaml"]
AGENTS = [b for b in YAML if "pools:" in b.text and "broker:" in b.text]
POLICIES = [b for b in YAML if "max_walltime_hours:" in b.text]
JOBS = [b for b in YAML if "workload:" in b.text]
TUTORIAL = DOCS / "tutorial" / "federate-three-sites.md"


def label(block):
    return named(block.page)


def test_every_yaml_block_is_of_a_known_kind():
    assert len(AGENTS) + len(JOBS) + len(POLICIES) == len(YAML)
    assert len(AGENTS) >= 2
    assert len(JOBS) >= 2


@pytest.mark.parametrize("block", AGENTS, ids=label)
def test_an_agent_accepts_the_configuration(block, tmp_path):
    read = config.parse(yaml.safe_load(block.text), folder=tmp_path)
    assert read.pools


@pytest.mark.parametrize("block", POLICIES, ids=label)
def test_a_sites_own_rules_are_read(block):
    assert policy.read(block.text, "page") != policy.Policy()


@pytest.mark.parametrize("block", JOBS, ids=label)
def test_a_job_file_is_accepted(block):
    [draft] = jobfile.load(block.text.encode())
    assert draft.samples > 0


def keys(value):
    if isinstance(value, dict):
        for key, below in value.items():
            yield str(key)
            yield from keys(below)
    elif isinstance(value, list):
        for below in value:
            yield from keys(below)


def test_the_reference_of_the_agents_configuration_has_every_key():
    """The example in the reader's own docstring has every key."""
    example = textwrap.dedent((config.__doc__ or "").partition("\n\n")[2].partition("needed:\n")[2])
    page = (DOCS / "reference" / "agent-config.md").read_text()
    found = set(keys(yaml.safe_load(example)))
    assert {"broker", "keep_work_days", "max_age_hours"} <= found
    assert {key for key in found if not re.search(rf"\b{re.escape(key)}\b", page)} == set()


def heredoc(name):
    """What the tutorial's shell function writes, its variables still in it."""
    text = TUTORIAL.read_text()
    return re.search(rf"^{name}\(\) {{ cat > \$1[\w./]* <<END\n(.*?)^END$", text, re.M | re.S)[1]


def test_the_tutorials_agents_are_accepted(tmp_path):
    calls = re.findall(r"^site (\w+) +(\d) (\d+) +'(.*?)' \"(.*?)\"$", TUTORIAL.read_text(), re.M)
    assert [call[0] for call in calls] == ["hamburg", "luebeck", "bremen"]
    for _, gpus, reserve, throttle, note in calls:
        text = heredoc("site")
        text = re.sub(r"\$\(.*?\)\)?\"?\)?:", "/venv/bin:", text)
        for mark, value in (("$2", gpus), ("$3", reserve), ("$4", throttle), ("$5", note)):
            text = text.replace(mark, value)
        read = config.parse(yaml.safe_load(text), folder=tmp_path)
        assert read.pools[0].gpus == int(gpus)


def test_the_tutorials_jobs_are_accepted():
    calls = re.findall(r"^job (\S+) (\S+) (\d+) (\d+)$", TUTORIAL.read_text(), re.M)
    assert len(calls) == 5
    for name, job_class, samples, value in calls:
        text = heredoc("job")
        for mark, word in (("$1", name), ("$2", job_class), ("$3", samples), ("$4", value)):
            text = text.replace(mark, word)
        [draft] = jobfile.load(text.encode())
        assert (draft.name, draft.job_class, draft.samples) == (name, job_class, int(samples))


def test_python_examples_compile():
    for page in pages():
        for block in blocks(page):
            if block.language == "python":
                compile(block.text, named(page), "exec")
