"""What can go wrong in the agent, as one tree. Catch at the edges only: the loop and the CLI."""

from __future__ import annotations


class AgentError(Exception):
    """Any refusal or failure the agent can explain in a sentence."""


class ConfigError(AgentError):
    """The configuration does not fit: `path` names the key, `why` says what to mend."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class BrokerUnreachable(AgentError):
    """No answer that came from the broker: retry. Running jobs are left alone."""

    def __init__(self, why: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class BrokerRefused(AgentError):
    """The broker said no. `code` is for machines, `why` for people, `status` is HTTP's."""

    def __init__(self, code: str, why: str, *, status: int = 0) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why
        self.status = status


class ProtocolMismatch(AgentError):
    """Broker and agent speak different versions: stop and tell the operator."""


class DriverFailed(AgentError):
    """The local scheduler could not do it: report it and keep syncing."""


class ProbeFailed(AgentError):
    """A probe gave no speed; the sentence says what was seen instead."""


class AlreadyRunning(AgentError):
    """Another agent holds the lock of this state folder."""


class NotJoined(AgentError):
    """The state folder has no credential yet: `hanse agent join` comes first."""


class JournalFull(AgentError):
    """The journal's disk takes nothing more: what was asked for was not written."""
