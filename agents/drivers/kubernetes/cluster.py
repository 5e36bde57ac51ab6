"""What of this site is in the cluster: one look at all of it, however many attempts there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from agents.clock import Clock
from agents.drivers.kubernetes import seen, terms
from agents.drivers.kubernetes.seen import Pod
from agents.drivers.kubernetes.server import ApiServer, Json, ServerAway, ServerRefused

INDEXED_SINCE = (1, 22)  #: the first release whose Jobs are indexed without a switch
AWAY_S = 2.0  #: after a failed look, how long it counts as failed
COST = 100.0  #: a look at what runs by itself may take a hundredth of the time
LONGEST_S = 10.0  #: between two looks, whatever one costs
DUTY = 0.1  #: of the time at most goes into reading what running jobs say
SMOOTH = 0.1  #: weight of the newest read in the mean


@dataclass(frozen=True, slots=True)
class Found:
    """One attempt's objects."""

    jobs: dict[str, Json] = field(default_factory=dict)  #: by name
    pods: tuple[Pod, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    asked: float  #: boottime before the question: what was created before is in it
    attempts: dict[str, Found]
    cost_s: float = 0.0  #: what the look took

    def of(self, attempt: str) -> Found:
        return self.attempts.get(attempt, Found())


class Cluster:
    """The namespace's Jobs and pods of one site. Calls raise ServerAway or ServerRefused."""

    def __init__(
        self, connect: Callable[[], ApiServer], *, site: str, clock: Clock, look_s: float
    ) -> None:
        self._connect = connect
        self._server: ApiServer | None = None
        self._select = f"{terms.SITE}={terms.site_label(site)}"
        self._clock = clock
        self._look_s = look_s
        self._view: View | None = None
        self._away: tuple[float, str] | None = None
        self._indexed: bool | None = None
        self._read_s = 0.0  # what a read costs, about
        self.followed = 0  # attempts that are read in turn

    @property
    def server(self) -> ApiServer:
        """Made at the first use, and anew after credentials were refused."""
        if self._server is None:
            self._server = self._connect()
        return self._server

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def look(self, *, after: float = 0.0, calm: bool = False) -> View:
        """A view not older than `look_s`, asked for later than `after` (boottime).

        `calm`: nothing is expected to happen, so a large site's may be some seconds older.
        """
        now = self._clock.boottime()
        view = self._view
        if view is not None and view.asked > after and now - view.asked < self._age(view, calm):
            return view
        if self._away is not None and now < self._away[0]:
            raise ServerAway(self._away[1])
        try:
            found = self._attempts()
            view = View(now, found, self._clock.boottime() - now)
        except ServerRefused as error:
            self.close()  # a kubeconfig may have been replaced
            raise self._is_away(now, f"HTTP {error.status}: {error}") from error
        except ServerAway as error:
            raise self._is_away(now, str(error)) from error
        self._view, self._away = view, None
        return view

    def _age(self, view: View, calm: bool) -> float:
        if not calm:
            return self._look_s
        return max(self._look_s, min(COST * view.cost_s, LONGEST_S))

    def _is_away(self, now: float, why: str) -> ServerAway:
        self._away = (now + AWAY_S, why)
        return ServerAway(why)

    def took(self, seconds: float) -> None:
        """A read of one attempt's progress was so long."""
        self._read_s += SMOOTH * (seconds - self._read_s)

    def pause_s(self) -> float:
        """Between two reads of one attempt, so that all together leave the loop its time."""
        return self.followed * self._read_s / DUTY

    def forget_view(self) -> None:
        self._view = None

    def indexed(self) -> bool:
        """True when the server's Jobs can be indexed."""
        if self._indexed is None:
            version = self.server.get("/version")
            numbers = [re.sub(r"\D", "", str(version.get(key, ""))) for key in ("major", "minor")]
            self._indexed = all(numbers) and tuple(map(int, numbers)) >= INDEXED_SINCE
        return self._indexed

    def jobs(self, name: str = "") -> str:
        return self._path("/apis/batch/v1", "jobs", name)

    def pods(self, name: str = "") -> str:
        return self._path("/api/v1", "pods", name)

    def services(self) -> str:
        return self._path("/api/v1", "services", "")

    def _path(self, group: str, kind: str, name: str) -> str:
        path = f"{group}/namespaces/{self.server.namespace}/{kind}"
        return f"{path}/{name}" if name else path

    def _attempts(self) -> dict[str, Found]:
        jobs = self.server.all_of(self.jobs(), labelSelector=self._select)
        pods = self.server.all_of(self.pods(), labelSelector=self._select)
        found: dict[str, Found] = {}
        for job in jobs:
            item = found.setdefault(_attempt(job), Found())
            item.jobs[job["metadata"]["name"]] = job
        for value in pods:
            name = _attempt(value)
            item = found.setdefault(name, Found())
            found[name] = Found(item.jobs, (*item.pods, seen.pod(value)))
        return found


def _attempt(value: Json) -> str:
    return str((value["metadata"].get("labels") or {}).get(terms.ATTEMPT, ""))
