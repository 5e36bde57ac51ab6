"""`hanse up`: the same federation, staying up until it is told to stop."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from broker.embedded import Federation, NotStarted, free_port

RESTART_AFTER_S = 2.0


def stay_up(*, home: Path, port: int, round_s: float | None, screen: Console) -> int:
    """Serve until SIGINT or SIGTERM; a process that dies is started again."""
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: stopping.append(n))
    try:
        with Federation(home, port or free_port()) as federation:
            federation.migrate()
            os.environ.update(federation.env)
            password = _operator(round_s)
            federation.start()
            _say(federation, password, screen)
            while not stopping:
                for child in federation.children:
                    if not child.running():
                        screen.print(f"[yellow]{child.name} ended; starting it again[/yellow]")
                        screen.print(f"   why: {child.log}")
                        child.stop()
                        child.start()
                        time.sleep(RESTART_AFTER_S)
                time.sleep(0.2)
            screen.print("Stopping.")
    except NotStarted as error:
        screen.print(f"[red]Not started:[/red] {error}")
        return 1
    return 0


def _operator(round_s: float | None) -> str | None:
    """Create the first operator with a random password; None when there is one already."""
    import django

    django.setup()
    from django.utils import timezone

    from federation.models import User
    from federation.services.members import venue_ensure
    from federation.services.story import tell

    now = timezone.now()
    settings: dict[str, Any] = {} if round_s is None else {"round_s": round_s}
    venue_ensure(now=now, **settings)
    if User.objects.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(15)
    user = User.objects.create_superuser("operator", password=password)
    tell("user", user.pk, "create", now=now, actor="broker", why="first operator")
    return password


def _say(federation: Federation, password: str | None, screen: Console) -> None:
    screen.print(f"[bold]Hanse is up[/bold]  console {federation.url}/console/")
    screen.print(f"API docs {federation.url}/api/docs   data {federation.home}")
    if password is not None:
        screen.print(f"Operator login, shown only now: operator / {password}")
    else:
        screen.print("Operator password lost? hanse operators password operator")
    screen.print("Next: hanse members add …, hanse sites add …, hanse tenants add … (--help)")
    screen.print("Ctrl-C stops it; everything is kept.")
