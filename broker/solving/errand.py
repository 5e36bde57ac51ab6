"""What the child is asked to do, and what a work of its is given."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol


class Spread(Protocol):
    """Computes the parts of one work wherever there is a free worker."""

    def __call__(
        self, name: str, bodies: Sequence[bytes], files: Sequence[str] = ()
    ) -> list[bytes]:
        """Results of the part `name` on each body, in order. `files`: none, or for each part the
        file of the shelf that it reads; it is named by its content and travels to a worker once.
        """


@dataclass(frozen=True, slots=True)
class Errand:
    """One request: documents by reference, small parameters, and a way to share the work out."""

    inputs: Mapping[str, Path]
    parameters: Mapping[str, Any]
    spread: Spread
    shelf: Path  #: folder of the files that parts share

    def document(self, name: str) -> dict[str, Any]:
        """The packed document of an input. It is shared: nobody may change it."""
        return _document(self.inputs[name])


Work = Callable[[Errand], dict[str, Any]]
PartWork = Callable[[bytes, Path], bytes]  #: body of a part, and the shelf -> its result


@lru_cache(maxsize=2)  # the book and the clearing of the round that is studied
def _document(path: Path) -> dict[str, Any]:
    """Files are named by their content, so one path is always one document."""
    document: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return document
