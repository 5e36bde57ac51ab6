"""The book of the worked example, cleared once for all tests."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from economics.book import read_book
from economics.rounds import decide
from tests.docs.reading import DOCS

BOOK: dict[str, Any] = json.loads((DOCS / "explanation" / "three-sites.json").read_text())


@cache
def cleared(sites: str = "ABC") -> dict[str, Any]:
    """The clearing of the book with these members alone."""
    pools = [row for row in BOOK["pools"] if row["site"] in sites]
    names = {row["id"] for row in pools}
    return decide(
        read_book(
            {
                **BOOK,
                "pools": pools,
                "affinity": [row for row in BOOK["affinity"] if row["pool"] in names],
                "jobs": [row for row in BOOK["jobs"] if row["site"] in sites],
                "transfer": [r for r in BOOK["transfer"] if {r["from"], r["to"]} <= set(sites)],
            }
        )
    )
