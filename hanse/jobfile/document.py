"""YAML text as a tree that remembers lines and the text as written.

Values are kept as text because YAML 1.1 guesses: `3.8e6` is a string to it, `010` is eight,
`1:30` is ninety, `no` is false. What a field means is the field's business (`fields.py`).
Nothing is ever constructed from a tag; anchors, which can blow a small file up, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from hanse.errors import JobFileInvalid, Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 20  # levels of nesting; the format has five
_PREFIX = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset({"str", "int", "float", "bool", "null", "timestamp"})


@dataclass(frozen=True, slots=True)
class Scalar:
    line: int
    text: str  #: as written, without quotes
    tag: str  #: str, int, float, bool, null or timestamp: what YAML takes it for
    plain: bool  #: written without quotes


@dataclass(frozen=True, slots=True)
class Entry:
    line: int  #: of the key
    node: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    line: int
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sequence:
    line: int
    items: tuple[Node, ...] = ()


Node = Scalar | Mapping | Sequence


def documents(source: bytes) -> list[Node]:
    """The documents of a file, empty ones left out. Raises `JobFileInvalid`."""
    text = _text(source)
    problems: list[Problem] = []
    try:
        found = [_tree(node, "", problems) for node in _composed(text)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _fail(mark.line + 1 if mark else 1, error.problem or "this is not YAML")
    except yaml.reader.ReaderError as error:
        _fail(text.count("\n", 0, error.position) + 1, "a character that YAML does not allow")
    if problems:
        raise JobFileInvalid(tuple(problems))
    return [node for node in found if not (isinstance(node, Scalar) and node.tag == "null")]


def _fail(line: int, sentence: str) -> None:
    raise JobFileInvalid((Problem(line, "", sentence),))


def _text(source: bytes) -> str:
    if len(source) > MAX_BYTES:
        _fail(1, f"a job file has at most {MAX_BYTES} bytes, this one has {len(source)}")
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise JobFileInvalid((Problem(line, "", "the file is not UTF-8 text"),)) from None


class _Composer(yaml.SafeLoader):
    """Composes nodes only; refuses aliases and deep nesting while it reads, not afterwards."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not supported", event.start_mark
            )
        if self.depth >= MAX_DEPTH:
            raise yaml.composer.ComposerError(
                None, None, f"nested deeper than {MAX_DEPTH} levels", event.start_mark
            )
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _composed(text: str) -> Iterator[yaml.Node]:
    loader = _Composer(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield node
    finally:
        loader.dispose()


def _tree(node: yaml.Node, path: str, problems: list[Problem]) -> Node:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, line, path, problems)
    if not node.tag.startswith(_PREFIX) or node.tag[len(_PREFIX) :] not in {"map", "seq"}:
        problems.append(Problem(line, path, f"the tag {node.tag} is not supported"))
    if isinstance(node, yaml.SequenceNode):
        items = enumerate(node.value)
        return Sequence(line, tuple(_tree(item, f"{path}[{n}]", problems) for n, item in items))
    entries: dict[str, Entry] = {}
    for key, value in node.value:
        at = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            problems.append(Problem(at, path, "a key must be a word"))
            continue
        below = f"{path}.{key.value}" if path else key.value
        if key.value in entries:
            first = entries[key.value].line
            problems.append(Problem(at, below, f"given twice, first in line {first}"))
            continue
        entries[key.value] = Entry(at, _tree(value, below, problems))
    return Mapping(line, entries)


def _scalar(node: yaml.ScalarNode, line: int, path: str, problems: list[Problem]) -> Scalar:
    tag = node.tag[len(_PREFIX) :] if node.tag.startswith(_PREFIX) else ""
    if tag not in _SCALAR_TAGS:
        problems.append(Problem(line, path, f"the tag {node.tag} is not supported"))
        tag = "str"
    return Scalar(line, node.value, tag, plain=node.style is None)
