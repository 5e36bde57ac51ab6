"""The agent's state folder: credential, lock, journal, attempts, probes."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.errors import AlreadyRunning, NotJoined
from agents.protocol import BadMessage, canonical, decode, encode


@dataclass(frozen=True, slots=True)
class Membership:
    """What joining brought. Never logged, never printed."""

    broker: str  #: the credential is sent to this address only
    site: str
    site_id: str
    credential: str

    def __repr__(self) -> str:
        return f"Membership(broker={self.broker!r}, site={self.site!r})"


class StateFolder:
    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def journal(self) -> Path:
        return self.root / "journal.sqlite3"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts"

    @property
    def probes(self) -> Path:
        return self.root / "probes"

    @property
    def measured(self) -> Path:
        return self.root / "measured.json"

    @property
    def drain(self) -> Path:
        return self.root / "drain.json"

    def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def membership(self, broker: str) -> Membership:
        """The credential for this broker; raises NotJoined with what to do."""
        try:
            value = json.loads((self.root / "credential.json").read_bytes())
            found = decode(Membership, value)
        except FileNotFoundError:
            raise NotJoined("this site has not joined yet: hanse agent join URL TOKEN") from None
        except (OSError, ValueError, BadMessage) as error:
            raise NotJoined(f"the credential file cannot be read: {error}") from None
        if found.broker != broker:
            raise NotJoined(
                f"the credential is for {found.broker}, the configuration says {broker}"
            )
        return found

    def save(self, membership: Membership) -> None:
        """Readable by its owner only, and whole at any moment."""
        self.prepare()
        write_private(self.root / "credential.json", canonical(encode(membership)))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One agent per folder; the kernel lets go when the agent dies, however it dies."""
        self.prepare()
        fd = os.open(self.root / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(f"another agent runs on {self.root}") from None
            yield
        finally:
            os.close(fd)


def write_private(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
