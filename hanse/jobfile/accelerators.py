"""`resources.accelerators`: which kinds of GPU, and which sizes of gang.

`A100:4` four of a kind · `A100:1-8` any power of two in the range · `A100` one · `4`, `any:4`
four of any kind · `{A100: 4, H100: 4}` or a list: either kind, in the same number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hanse.jobfile.document import Mapping, Node, Scalar

MAX_GPUS = 1024  # GPUs in one gang
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
_COUNT = re.compile(r"([1-9]\d{0,5})(?:-([1-9]\d{0,5}))?")


@dataclass(frozen=True, slots=True)
class Accelerators:
    kinds: tuple[str, ...]  #: empty = any
    gpus: tuple[int, ...]  #: allowed gang sizes, ascending


class Unreadable(ValueError):
    """Says in a sentence what is wrong with the field."""


def read(node: Node) -> Accelerators:
    """Raises `Unreadable`."""
    wishes = [_wish(kind, count) for kind, count in _pairs(node)]
    if not wishes:
        raise Unreadable("names no accelerator")
    kinds = [kind for kind, _ in wishes if kind]
    sizes = {sizes for _, sizes in wishes}
    if len(sizes) > 1:
        raise Unreadable("every kind must come in the same number")
    if len(wishes) > 1 and len(kinds) < len(wishes):
        raise Unreadable("'any' cannot stand beside other kinds")
    if len({kind.casefold() for kind in kinds}) < len(kinds):
        raise Unreadable("a kind is given twice")
    return Accelerators(tuple(kinds), sizes.pop())


def _pairs(node: Node) -> list[tuple[str, str]]:
    """(kind, count) as written; the count is '1' when it is left out."""
    if isinstance(node, Scalar):
        return [_pair(node)]
    if isinstance(node, Mapping):
        counts = [(kind, entry.node) for kind, entry in node.entries.items()]
        return [(kind, _plain_text(count)) for kind, count in counts]
    return [_pair(item) for item in node.items]


def _pair(node: Node) -> tuple[str, str]:
    text = _plain_text(node)
    if _COUNT.fullmatch(text):
        return "any", text
    kind, colon, count = text.partition(":")
    return kind, count if colon else "1"


def _plain_text(node: Node) -> str:
    if not isinstance(node, Scalar) or (node.plain and node.tag in {"null", "bool"}):
        raise Unreadable("must be such as A100:4, A100:1-8, 4 or {A100: 4, H100: 4}")
    return node.text


def _wish(kind: str, count: str) -> tuple[str, tuple[int, ...]]:
    if not _KIND.fullmatch(kind):
        raise Unreadable(f"{_shown(kind)} is no kind of accelerator; write A100:4, A100:1-8 or 4")
    match = _COUNT.fullmatch(count)
    if not match:
        raise Unreadable(f"{_shown(count)} is no number of GPUs; write A100:4 or A100:1-8")
    least = int(match[1])
    most = int(match[2] or match[1])
    if most > MAX_GPUS:
        raise Unreadable(f"a gang has at most {MAX_GPUS} GPUs")
    if least > most:
        raise Unreadable(f"the range {count} is upside down")
    sizes = (least,) if not match[2] else _powers_of_two(least, most)
    if not sizes:
        raise Unreadable(f"there is no power of two in {count}")
    return "" if kind.casefold() == "any" else kind, sizes


def _powers_of_two(least: int, most: int) -> tuple[int, ...]:
    sizes = (1 << n for n in range(MAX_GPUS.bit_length()))
    return tuple(size for size in sizes if least <= size <= most)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
