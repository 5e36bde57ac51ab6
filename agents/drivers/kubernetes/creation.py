"""Puts an attempt's objects into the cluster, once, however often it has to be tried."""

from __future__ import annotations

from typing import Any

from agents.drivers.base import Task
from agents.drivers.kubernetes.cluster import Cluster
from agents.drivers.kubernetes.manifests import jobs_of, service_of, terms_of
from agents.drivers.kubernetes.server import ServerRefused
from agents.drivers.kubernetes.terms import MADE
from agents.drivers.settings import DriverSettings
from agents.errors import DriverFailed

Json = dict[str, Any]
CONFLICT = 409


def created_by(job: Json) -> str:
    """The mark of the start that made it."""
    return str((job["metadata"].get("annotations") or {}).get(MADE, ""))


class Creation:
    def __init__(
        self,
        task: Task,
        *,
        cluster: Cluster,
        site: str,
        settings: DriverSettings,
        now: float,
        made: str,
    ) -> None:
        """`made` marks what this start creates, so that a repeat knows its own."""
        self.made = made
        self._task = task
        self._cluster = cluster
        self._site = site
        self._settings = settings
        self._now = now
        self._ranks = terms_of(task, settings.own, indexed=False).ranks  # refuses what never fits
        self._jobs: list[Json] | None = None
        self._done: list[Json] = []
        self._named = False

    def advance(self) -> None:
        """Create what is missing. Raises ServerAway, or DriverFailed when nothing is left of it."""
        try:
            for job in self._wanted()[len(self._done) :]:
                self._done.append(self._create(job))
                if self._ranks > 1 and not self._named:
                    self._name(self._done[0])
        except ServerRefused as error:
            self._undo()
            raise DriverFailed(f"the API server refused it: {error}") from error

    def _wanted(self) -> list[Json]:
        if self._jobs is None:
            indexed = self._ranks > 1 and self._cluster.indexed()
            self._jobs = jobs_of(
                self._task,
                terms=terms_of(self._task, self._settings.own, indexed=indexed),
                site=self._site,
                settings=self._settings,
                fence_s=self._task.fence_at - self._now,
                made=self.made,
            )
        return self._jobs

    def _create(self, job: Json) -> Json:
        try:
            return self._cluster.server.create(self._cluster.jobs(), job)
        except ServerRefused as error:
            if error.status != CONFLICT:
                raise
        there = self._cluster.server.get(self._cluster.jobs(job["metadata"]["name"]))
        if created_by(there) != self.made:
            raise DriverFailed("this attempt was started before: its Job is in the cluster")
        return there

    def _name(self, owner: Json) -> None:
        """The gang's headless service; one that is there already is this attempt's own."""
        value = service_of(self._task.attempt, site=self._site, owner=owner)
        try:
            self._cluster.server.create(self._cluster.services(), value)
        except ServerRefused as error:
            if error.status != CONFLICT:
                raise
        self._named = True

    def _undo(self) -> None:
        for job in self._done:
            self._cluster.server.delete(self._cluster.jobs(job["metadata"]["name"]))
        self._done.clear()
