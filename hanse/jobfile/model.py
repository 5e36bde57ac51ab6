"""`workload.model`: what is trained, so that the planner can choose GPUs and split it over them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hanse.jobfile.document import Mapping, Scalar, Sequence
from hanse.jobfile.fields import Block, Range

MAX_VARIABLES = 1000
MAX_NAME = 200  # characters
_ONE = Decimal(1)
_FIGURES = {
    "params": Range(_ONE, Decimal(10) ** 16, "parameters"),
    "layers": Range(_ONE, Decimal(10) ** 5, "layers"),
    "hidden": Range(_ONE, Decimal(10) ** 7, "units"),
    "heads": Range(_ONE, Decimal(10) ** 6, "heads"),
    "seq": Range(_ONE, Decimal(10) ** 9, "tokens"),
    "vocab": Range(_ONE, Decimal(10) ** 9, "tokens"),
    "global_batch": Range(_ONE, Decimal(10) ** 9, "samples"),
}
_SIZE = Range(Decimal("0.000001"), Decimal(10) ** 9, "MB", places=6)
_ROWS = Range(_ONE, Decimal(10) ** 12, "rows")


def read_model(workload: Block) -> dict[str, Any] | None:
    """The model of a job as the API takes it; None when it is left out."""
    if workload.entry("model") is None:
        return None
    block = workload.block("model", required=True)
    block.only((*_FIGURES, "variables"))
    found: dict[str, Any] = {}
    for key, allowed in _FIGURES.items():
        value = block.number(key, allowed, required=True)
        if value is not None:
            found[key] = int(value)
    variables = _variables(block)
    return {**found, "variables": variables} if variables else found


def _variables(block: Block) -> list[dict[str, Any]]:
    entry = block.entry("variables")
    if entry is None:
        return []
    node = entry.node
    if not isinstance(node, Sequence) or not 0 < len(node.items) <= MAX_VARIABLES:
        block.blame(entry.line, "variables", f"must be a list of 1 to {MAX_VARIABLES} variables")
        return []
    found: list[dict[str, Any]] = []
    for at, item in enumerate(node.items):
        key = f"variables[{at}]"
        if isinstance(item, Mapping):
            found.append(_variable(Block(item, block.at(key), block.problems)))
        else:
            block.blame(item.line, key, "must be such as {name: wte, size_mb: 206, sparse: true}")
    return found


def _variable(block: Block) -> dict[str, Any]:
    block.only(("name", "size_mb", "sparse", "rows"))
    name, size = _name(block), block.number("size_mb", _SIZE, required=True)
    rows = block.number("rows", _ROWS)
    found: dict[str, Any] = {
        "name": name or "",
        "size_mb": float(size or 0),
        "sparse": block.flag("sparse", default=False),
    }
    return found if rows is None else {**found, "rows": int(rows)}


def _name(block: Block) -> str | None:
    """A tensor's name, such as transformer.wte.weight."""
    entry = block.entry("name", required=True)
    if entry is None:
        return None
    node = entry.node
    if isinstance(node, Scalar) and 0 < len(node.text) <= MAX_NAME and node.text.isprintable():
        return node.text
    block.blame(entry.line, "name", f"must be 1 to {MAX_NAME} printable characters")
    return None
