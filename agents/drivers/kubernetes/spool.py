"""What was read of an attempt's containers, on the agent's own disk.

    <root>/<attempt>/  progress.jsonl  output.log  place.json  exit.json

`place.json` says how long the files are and where the next read begins, and is written after them:
what a crash leaves beyond it is cut off and read again.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.drivers.base import Exit, LogPart
from agents.drivers.guard import log_mark
from agents.drivers.kubernetes.stream import Place
from agents.protocol import EndReason

GAP = b"[hanse: lines are missing here, the node dropped them before they were read]\n"
DEFAULT_CAP = 1024 * 1024
FILES = ("progress.jsonl", "output.log")


class Spool:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = _read(folder / "place.json")
        self.cap = int(kept.get("cap", DEFAULT_CAP))  #: bytes of log
        self.full = bool(kept.get("full"))
        self._size = {name: int(kept.get("size", {}).get(name, 0)) for name in FILES}
        places = kept.get("places", {})
        self._places = {key: Place(**place) for key, place in places.items()}
        #: of pods by uid: our boot, and pod's clock less our boottime, in seconds, at least
        self.clocks: dict[str, tuple[str, float]] = {
            uid: (boot, float(offset)) for uid, (boot, offset) in kept.get("clocks", {}).items()
        }
        #: of pods by uid: our boot, and the fence they were last told, boottime
        self.fences: dict[str, tuple[str, float]] = {
            uid: (boot, float(fence)) for uid, (boot, fence) in kept.get("fences", {}).items()
        }
        begun = kept.get("begun")
        self.begun: tuple[str, float] | None = None if begun is None else (begun[0], begun[1])
        for name in FILES:
            self._cut(name)

    def place(self, key: str) -> Place:
        return self._places.get(key, Place())

    def take_log(self, data: bytes, *, key: str, place: Place, gap: bool) -> None:
        """Keep new lines up to the cap; the last bytes of a full log say that it is cut."""
        data = GAP + data if gap else data
        mark = log_mark(self.cap)
        room = max(self.cap - len(mark) - self._size["output.log"], 0)
        if not self.full and len(data) > room:
            data, self.full = data[:room] + mark, True
            self._append("output.log", data)
        elif not self.full:
            self._append("output.log", data)
        self._places[key] = place
        self.save()

    def close_log(self) -> None:
        """Nothing more of it can be read."""
        if not self.full:
            self._append("output.log", log_mark(self.cap))
            self.full = True
            self.save()

    def take_progress(self, data: bytes, *, key: str, place: Place) -> None:
        self._append("progress.jsonl", data)
        self._places[key] = place
        self.save()

    def progress(self, offset: int, limit: int) -> bytes:
        return self._slice("progress.jsonl", offset, limit)

    def log(self, offset: int, limit: int) -> LogPart:
        data = self._slice("output.log", offset, limit)
        end = offset + len(data)
        return LogPart(data, truncated=self.full and end >= self._size["output.log"])

    def write_exit(self, over: Exit, boot: str) -> None:
        value = {**asdict(over), "reason": str(over.reason), "boot": boot}
        _replace(self._folder / "exit.json", value)

    def read_exit(self, boot: str) -> Exit | None:
        value = _read(self._folder / "exit.json")
        if not value:
            return None
        ended = value["ended"] if value["boot"] == boot else None
        return Exit(EndReason(value["reason"]), value["exit_code"], value["message"], ended)

    def save(self) -> None:
        value = {
            "size": self._size,
            "places": {key: asdict(place) for key, place in self._places.items()},
            "full": self.full,
            "begun": self.begun,
            "cap": self.cap,
            "clocks": self.clocks,
            "fences": self.fences,
        }
        _replace(self._folder / "place.json", value)

    def _append(self, name: str, data: bytes) -> None:
        """A full disk loses log and progress, not the job."""
        if not data:
            return
        with suppress(OSError), (self._folder / name).open("ab") as file:
            file.write(data)
        with suppress(OSError):
            self._size[name] = (self._folder / name).stat().st_size

    def _cut(self, name: str) -> None:
        file = self._folder / name
        if file.exists():
            os.truncate(file, min(self._size[name], file.stat().st_size))

    def _slice(self, name: str, offset: int, limit: int) -> bytes:
        try:
            with (self._folder / name).open("rb") as file:
                return os.pread(file.fileno(), limit, offset)
        except OSError:
            return b""


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _replace(path: Path, value: dict[str, Any]) -> None:
    draft = path.with_name(path.name + ".draft")
    with suppress(OSError):
        draft.write_text(json.dumps(value), encoding="utf-8")
        os.replace(draft, path)
