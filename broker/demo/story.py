"""`hanse demo`: from nothing to settled, in numbered steps."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from broker.demo import jobs as demo_jobs
from broker.demo import show
from broker.demo.sites import SITES, UNKNOWN, agent_config, agent_join, agent_process
from broker.embedded import Child, Federation, NotStarted, free_port, wait_until

ROUND_S = 4.0
PATIENCE_S = 240.0
FUNDS = 100_000  #: credits for each tenant
VENUE = {
    "round_s": ROUND_S,
    "renew_s": 15.0,
    "fence_s": 60.0,
    "fence_margin_s": 5.0,
    "grace_s": 5.0,
    "restart_s": 2.0,
    "probe_s": 3.0,
}


def run_demo(*, as_json: bool, keep: bool, count: int, screen: Console) -> int:
    """Run the whole story; 0 when every job succeeded, every round certified and money adds up."""
    started = time.monotonic()
    home = Path.cwd() / ".hanse" / f"demo-{os.getpid()}"
    if as_json:
        screen = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
    try:
        with ExitStack() as stack:
            summary = _story(home, count, screen, stack)
    except NotStarted as error:
        screen.print(f"[red]The demo could not run:[/red] {error}")
        screen.print(f"Logs: {home / 'logs'}")
        return 1
    summary["seconds"] = round(time.monotonic() - started, 1)
    good = show.verdict(summary, screen)
    if good and not keep:
        shutil.rmtree(home, ignore_errors=True)
    else:
        screen.print(f"Everything is kept in {home}")
    if as_json:
        sys.stdout.write(json.dumps(summary) + "\n")
    return 0 if good else 1


def _story(home: Path, count: int, screen: Console, stack: ExitStack) -> dict[str, Any]:
    # 1. a broker: web, worker with beat, on SQLite and the file-system queue
    port = free_port()
    federation = stack.enter_context(
        Federation(
            home,
            port,
            extra_env={
                "HANSE_TICK_S": "0.5",
                "HANSE_PULSE_GAP_S": "10",
                "HANSE_RATE_USER": "6000/min",
            },
        )
    )
    screen.print(f"[bold]1.[/bold] A broker on SQLite at {federation.url}")
    federation.migrate()
    _django(federation)
    tokens, api_tokens = _furnish()
    federation.start()

    # 2. three sites join, measure what they can do, and publish offers
    screen.print("[bold]2.[/bold] Three datacenters join, probe their speeds and publish offers")
    agents = _sites(home, federation.url, tokens, stack)
    children = [*federation.children, *agents]
    wait_until(
        demo_jobs.all_sites_offer, what="the sites' offers", patience_s=60, children=children
    )
    for site in SITES:
        screen.print(f"   [dim]{site.name} ({site.member}): {site.note}[/dim]")

    # 3. tenants submit real training jobs over REST
    clients = demo_jobs.clients(federation.url, api_tokens)
    submitted = demo_jobs.submit_all(clients, count)
    show.ranking(clients, screen)
    screen.print(
        f"[bold]3.[/bold] {len(submitted)} training jobs submitted by REST; nobody has run "
        f"{UNKNOWN} yet, so it gets a small paid probe first"
    )

    # 4. rounds clear, agents train, the ledger settles
    show.watch(
        clients,
        screen,
        done=demo_jobs.all_settled,
        alive=lambda: [c for c in children if not c.running()],
        patience_s=PATIENCE_S,
    )
    rows = demo_jobs.rows(submitted)
    show.results(rows, screen)
    show.statements(screen)
    return _summary(rows)


def _django(federation: Federation) -> None:
    """Read the demo's database in this process too, as its operator."""
    os.environ.update(federation.env)
    import django

    django.setup()


def _furnish() -> tuple[dict[str, str], dict[str, str]]:
    """Members, sites, tenants, classes and funds; returns join tokens and API tokens by name."""
    from broker.demo.furnish import furnish

    return furnish(sites=SITES, venue=VENUE, funds=FUNDS)


def _sites(home: Path, url: str, tokens: dict[str, str], stack: ExitStack) -> list[Child]:
    children = []
    for site in SITES:
        config = agent_config(site, url=url, folder=home / "sites" / site.name)
        agent_join(url=url, token=tokens[site.name], config=config)
        child = agent_process(site, config=config, logs=home / "logs")
        child.start()
        stack.callback(child.stop)
        children.append(child)
    return children


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    from federation.models import Round
    from federation.selectors.accounts import trial_balance

    balance = trial_balance()
    decided = Round.objects.exclude(state="open")
    errors = [row["error"] for row in rows if row["error"] is not None]
    return {
        "jobs": len(rows),
        "succeeded": sum(row["state"] == "succeeded" for row in rows),
        "sites_used": len({row["site"] for row in rows if row["site"]}),
        "rounds": decided.count(),
        "rounds_certified": decided.filter(certified=True).count(),
        "ledger_sum_micro": balance.entries_micro,
        "ledger_holds": balance.holds,
        "forecast_error_median": round(statistics.median(errors), 4) if errors else None,
    }
