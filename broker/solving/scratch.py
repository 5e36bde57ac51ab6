"""A folder for what goes to the child and comes back. A killed process leaves nothing for long."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

KEPT = 8  #: documents that are kept for the next errand
SHELVED = 64  #: files that parts share, kept for the next errand
YOUNG_S = 60.0  #: a folder is not judged while it is being made


class Scratch:
    """This process's own folder, locked while the process lives."""

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        prefix = f"hanse-solving-{os.getuid()}-"
        _sweep(parent, prefix)
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = (self.folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._kept: list[Path] = []
        self.shelf = self.folder / "shelf"
        self.shelf.mkdir()

    def document(self, body: bytes | memoryview) -> Path:
        """The file that holds these bytes, named by their digest."""
        path = self.folder / f"{hashlib.sha256(body).hexdigest()}.gz"
        if path in self._kept:
            self._kept.remove(path)
        else:
            path.write_bytes(body)
        self._kept.append(path)
        return path

    def answers(self) -> Path:
        """A fresh folder for what one errand writes."""
        return Path(tempfile.mkdtemp(prefix="errand-", dir=self.folder))

    def shelve(self, name: str, read: Callable[[], bytes]) -> None:
        """Put a file on the shelf unless it is there; a plain name, given by its content."""
        path = self.shelf / Path(name).name
        if not path.exists():
            draft = path.with_suffix(".draft")
            draft.write_bytes(read())
            draft.replace(path)

    def tidy(self) -> None:
        """Keep the newest documents, and the newest files of the shelf."""
        while len(self._kept) > KEPT:
            self._kept.pop(0).unlink(missing_ok=True)
        files = sorted(self.shelf.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in files[:-SHELVED]:
            path.unlink()

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _sweep(parent: Path, prefix: str) -> None:
    """Remove the folders of processes that were killed: nobody holds their locks any more."""
    for folder in parent.glob(f"{prefix}*"):
        try:
            facts = folder.lstat()
            ours = facts.st_uid == os.getuid() and time.time() - facts.st_mtime > YOUNG_S
            if not ours or folder.is_symlink():
                continue
            with (folder / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # it lives, or another process was first
