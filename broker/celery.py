"""Celery: who wakes the services up. The database is the record of truth, the queue a hint."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown

from broker import filequeue  # noqa: F401 - makes the embedded transport known to kombu
from broker.queues import STUDIES

PRIORS_EVERY_S = 300.0

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.settings.dev")

app = Celery("hanse")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["broker"])


@app.on_after_finalize.connect
def schedule(sender: Celery, **_: object) -> None:
    """The few periodic ticks, all level-triggered: a lost message costs a tick."""
    from django.conf import settings  # noqa: PLC0415 - configured only now

    from broker import tasks  # noqa: PLC0415 - it needs the app

    every = settings.TICK_S
    for task, factor in (
        (tasks.tick_rounds, 1),
        (tasks.tick_clocks, 1),
        (tasks.tick_contracts, 1),
        (tasks.tick_affinity, 1),
        (tasks.tick_studies, 1),
        (tasks.tick_housekeeping, 1800 / every),
    ):
        sender.add_periodic_task(every * factor, task.s(), expires=max(10 * every, 30))
    # beside the reports: what takes seconds must not hold up a tick
    sender.add_periodic_task(
        PRIORS_EVERY_S, tasks.tick_priors.s(), queue=STUDIES, expires=PRIORS_EVERY_S
    )


@worker_process_init.connect
def warm_up(**_: object) -> None:
    """Start the process that solves, so that its imports are done before the first round."""
    from django.conf import settings  # noqa: PLC0415 - configured only now

    from broker.solving.supervisor import own_solver  # noqa: PLC0415

    own_solver(settings.SOLVE_MEMORY_MB).start()


@worker_process_shutdown.connect
def cool_down(**_: object) -> None:
    """Leave no solver behind."""
    from broker.solving.supervisor import close_own_solver  # noqa: PLC0415

    close_own_solver()
