"""Slurm's own commands: lists of words, a clean environment, a time limit. No shell."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from agents.drivers.environment import BASE_PATH
from agents.errors import AgentError

TIMEOUT_S = 10.0
MAX_WORDS = 300  #: characters of Slurm's complaint worth telling
#: what the commands print when it is the controller that is away, and not a refusal
SILENT = (
    "Unable to contact slurm controller",
    "Unable to establish controller",
    "Connection refused",
    "Connection timed out",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "controller not responding",
    "Transport endpoint is not connected",
)


class SlurmSilent(AgentError):
    """No answer from slurmctld: nothing is known, ask again later."""


class SlurmRefused(AgentError):
    """Slurm said no; the text is its own sentence."""


@dataclass(frozen=True, slots=True)
class Commands:
    bin: Path | None  #: folder of the commands; None: a plain PATH
    conf: Path | None
    timeout_s: float = TIMEOUT_S

    def ask(self, name: str, *words: str) -> str:
        """Standard output; raises SlurmSilent or SlurmRefused."""
        try:
            done = subprocess.run(  # noqa: S603 - words, no shell
                [self.program(name), *words],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SlurmSilent(f"{name}: no answer within {self.timeout_s:g} s") from None
        except OSError as error:
            raise SlurmRefused(f"{name} cannot be run: {error.strerror}") from None
        if done.returncode == 0:
            return done.stdout.decode(errors="replace")
        why = complaint(done.stderr.decode(errors="replace"))
        if any(text in why for text in SILENT):
            raise SlurmSilent(f"{name}: {why}")
        raise SlurmRefused(f"{name}: {why}")

    def program(self, name: str) -> str:
        return name if self.bin is None else str(self.bin / name)

    def environment(self) -> dict[str, str]:
        """Nothing of the agent's own; sbatch hands it on to the job's script."""
        path = BASE_PATH if self.bin is None else f"{self.bin}:{BASE_PATH}"
        env = {"PATH": path, "LANG": "C.UTF-8", "HOME": os.path.expanduser("~")}
        return env if self.conf is None else {**env, "SLURM_CONF": str(self.conf)}


def complaint(text: str) -> str:
    """The lines of an error without the program's name before each."""
    lines = [line.split("error: ", 1)[-1].strip() for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))[:MAX_WORDS] or "it failed without a word"
