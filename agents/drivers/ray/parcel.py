"""What goes to the nodes: our guard as one file that a bare Python runs.

A zip application of four modules that use the standard library only, named by its content: a node
never runs half of it, and an update of the agent leaves the guards that already run alone.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import agents

MODULES = (
    "drivers/guard.py",
    "drivers/jsonfile.py",
    "drivers/processes.py",
    "drivers/ray/watch.py",
)
PACKAGES = ("__init__.py", "drivers/__init__.py", "drivers/ray/__init__.py")
MAIN = "import sys\nfrom agents.drivers.ray.watch import main\nsys.exit(main(sys.argv[1]))\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  #: the same content gives the same bytes


def parcel() -> bytes:
    """The zip application."""
    source = Path(agents.__file__).resolve().parent
    texts = {"__main__.py": MAIN.encode()}
    texts.update({f"agents/{name}": b"" for name in PACKAGES})
    texts.update({f"agents/{name}": (source / name).read_bytes() for name in MODULES})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text)
    return out.getvalue()


def deliver(folder: Path) -> Path:
    """Put it into a folder that the nodes see, once for each content; returns its path."""
    data = parcel()
    path = folder / f"guard-{hashlib.sha256(data).hexdigest()[:16]}.pyz"
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_bytes(data)
        os.replace(draft, path)
    return path
