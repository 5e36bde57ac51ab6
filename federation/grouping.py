"""Which jobs are alike to the market: same pools, same speeds, same costs for each GPU-hour.

The group is written down with the job, so a round reads it and never computes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

DIGITS = 32  #: hexadecimal; 128 bits, so that nobody can make two groups meet


@dataclass(frozen=True, slots=True)
class Traits:
    """What decides where a job may run and what a GPU-hour there is to it; never its bid."""

    home: UUID  #: the member its tenant is at home with
    job_class: UUID
    kind: str
    gpus: Sequence[int]
    gpu_kinds: Iterable[str] = ()
    sites_allow: Iterable[str] = ()
    sites_deny: Iterable[str] = ()
    pools: Iterable[str] = ()


def group_of(traits: Traits) -> str:
    """Digest of the traits; the order and repetition of names in a list do not matter."""
    text = json.dumps(
        [
            traits.home.hex,
            traits.job_class.hex,
            traits.kind,
            sorted({int(size) for size in traits.gpus}),
            *(
                sorted(set(names))
                for names in (
                    traits.gpu_kinds,
                    traits.sites_allow,
                    traits.sites_deny,
                    traits.pools,
                )
            ),
        ],
        separators=(",", ":"),
    )
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
