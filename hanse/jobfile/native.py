"""The native form: SkyPilot's core keys plus the blocks `workload`, `market`, `placement`.

A key that the format has and the broker does not honour yet is refused, never dropped: a job that
runs without its data is worse than one that does not start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from hanse.errors import JobFileInvalid, Problem
from hanse.jobfile import accelerators, document
from hanse.jobfile.document import Node, Scalar
from hanse.jobfile.draft import DEFAULT_GRACE_S, JobDraft
from hanse.jobfile.fields import Block, Range
from hanse.jobfile.model import read_model

_KEYS = ("name", "num_nodes", "resources", "envs", "setup", "run")
_BLOCKS = ("workload", "market", "placement")
_LATER = ("data", "outputs", "array")
_SKYPILOT_LATER = ("workdir", "file_mounts", "secrets", "service", "job_recovery", "config")
_RESOURCES_LATER = (
    "max",
    "cpus",
    "memory",
    "use_spot",
    "infra",
    "any_of",
    "ordered",
    "image_id",
    "disk_size",
    "ports",
)
_OTHER_FORMS = {"apiVersion": "Kubernetes manifests", "commands": "dstack tasks"}

_ONE = Range(Decimal(1), Decimal(1), "nodes")
_SAMPLES = Range(Decimal(1), Decimal(10) ** 15, "samples")
_CREDITS = Range(Decimal("0.000001"), Decimal(10) ** 9, "credits", places=6)
_GRACE = Range(Decimal(0), Decimal(3600), "seconds")
_INTERVAL = Range(Decimal(1), Decimal(604_800), "seconds")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_MAX_ENV = 32_768  # characters in one value


def load(source: bytes, *, env: Mapping[str, str] | None = None) -> tuple[JobDraft, ...]:
    """All jobs of a file; `env` is laid over each one's `envs`. Raises `JobFileInvalid`."""
    if re.match(rb"#!.*(\r?\n#.*)*?\r?\n#SBATCH\s", source):
        raise JobFileInvalid((Problem(1, "", "Slurm scripts are not supported yet"),))
    found = document.documents(source)
    problems: list[Problem] = []
    drafts = [_draft(node, env or {}, problems) for node in found]
    if not found:
        problems.append(Problem(1, "", "the file holds no job"))
    if problems:
        raise JobFileInvalid(tuple(sorted(problems, key=lambda problem: problem.line)))
    return tuple(draft for draft in drafts if draft is not None)


def _draft(node: Node, env: Mapping[str, str], problems: list[Problem]) -> JobDraft | None:
    if not isinstance(node, document.Mapping):
        problems.append(Problem(node.line, "", "a job must be a block of keys"))
        return None
    for key, form in _OTHER_FORMS.items():
        if key in node.entries:
            line = node.entries[key].line
            problems.append(Problem(line, key, f"{form} are not supported yet"))
            return None
    job = Block(node, "", problems)
    job.only((*_KEYS, *_BLOCKS), (*_LATER, *_SKYPILOT_LATER))
    job.number("num_nodes", _ONE)
    workload = job.block("workload", required=True)
    workload.only(("class", "samples", "checkpoint", "model"))
    model = read_model(workload)
    market = job.block("market", required=True)
    market.only(("value", "max_cost", "deadline", "preemptible"))
    name, command = job.word("name"), job.text("run", required=True)
    job_class, samples = workload.word("class"), workload.number("samples", _SAMPLES, required=True)
    value = market.number("value", _CREDITS, required=True)
    max_cost = market.number("max_cost", _CREDITS, required=True)
    wish = _accelerators(job.block("resources"), planned=model is not None)
    grace_s, notes = _checkpoint(workload.block("checkpoint"))
    deadline, preemptible = market.moment("deadline"), market.flag("preemptible", default=True)
    allow, deny, pools = _placement(job.block("placement"))
    setup, envs = job.text("setup") or "", _envs(job, env)
    if problems or not (name and command and job_class and samples and value and max_cost):
        return None  # each of these came with a problem
    return JobDraft(
        name=name,
        job_class=job_class,
        command=command,
        samples=int(samples),
        value=value,
        max_cost=max_cost,
        setup=setup,
        gpus=wish.gpus,
        gpu_kinds=wish.kinds,
        deadline=deadline,
        env=envs,
        preemptible=preemptible,
        grace_s=grace_s,
        sites_allow=allow,
        sites_deny=deny,
        pools=pools,
        model=model,
        notes=notes,
    )


def _accelerators(resources: Block, *, planned: bool) -> accelerators.Accelerators:
    """When nothing is said: with a model what the planner chooses, else one GPU of any kind."""
    resources.only(("accelerators",), _RESOURCES_LATER)
    entry = resources.entry("accelerators")
    if entry is not None:
        try:
            return accelerators.read(entry.node)
        except accelerators.Unreadable as error:
            resources.blame(entry.node.line, "accelerators", str(error))
    return accelerators.Accelerators((), () if planned else (1,))


def _checkpoint(block: Block) -> tuple[int, tuple[Problem, ...]]:
    """The grace in seconds, and what the tenant should know is not honoured yet."""
    block.only(("path", "interval_s", "grace_s"))
    path = block.text("path")
    interval = block.number("interval_s", _INTERVAL)
    grace = block.number("grace_s", _GRACE)
    said = {
        "path": (path, "write to $HANSE_CHECKPOINT_DIR instead"),
        "interval_s": (interval, "the program decides when it saves"),
    }
    notes = tuple(
        Problem(block.mapping.entries[key].line, block.at(key), f"not honoured yet: {instead}")
        for key, (value, instead) in said.items()
        if value is not None
    )
    return (DEFAULT_GRACE_S if grace is None else int(grace)), notes


def _placement(block: Block) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    block.only(("sites_allow", "sites_deny", "pools"))
    allow, deny = block.places("sites_allow"), block.places("sites_deny")
    both = sorted(set(allow) & set(deny))
    if both:
        line = block.mapping.entries["sites_deny"].line
        block.blame(line, "sites_deny", f"{both[0]!r} is also in sites_allow")
    return allow, deny, block.places("pools")


def _envs(job: Block, given: Mapping[str, str]) -> dict[str, str]:
    """`envs` with the command line's on top. A name without a value must be given there."""
    block = job.block("envs")
    values: dict[str, str] = {}
    for name, entry in block.mapping.entries.items():
        node = entry.node
        if not _ENV_NAME.fullmatch(name) or name.startswith("HANSE_"):
            block.blame(entry.line, name, "must be a variable's name and not begin with HANSE_")
        elif not isinstance(node, Scalar) or (node.plain and node.tag == "bool"):
            block.blame(entry.line, name, "must be a text; put it in quotes")
        elif node.plain and node.tag == "null":
            if name not in given:
                block.blame(entry.line, name, f"has no value; give one with --env {name}=...")
        elif "\x00" in node.text or len(node.text) > _MAX_ENV:
            block.blame(entry.line, name, f"has at most {_MAX_ENV} characters, none of them NUL")
        else:
            values[name] = node.text
    return values | dict(given)


def env_option(text: str) -> tuple[str, str]:
    """One `--env NAME=VALUE` of the command line. Raises ValueError with a sentence."""
    name, equals, value = text.partition("=")
    if not equals or not _ENV_NAME.fullmatch(name) or name.startswith("HANSE_"):
        raise ValueError("must be NAME=VALUE, and NAME must not begin with HANSE_")
    return name, value
