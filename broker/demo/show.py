"""What a person sees of the demo: live progress, then the tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from broker.demo.sites import SITES
from broker.embedded import Child, NotStarted
from hanse.client import Client

TONES = {"SUCCEEDED": "green", "RUNNING": "cyan", "FAILED": "red", "REJECTED": "red"}
LOOK_EVERY_S = 0.5


def money(micro: int | None) -> str:
    return "" if micro is None else f"{micro / 1e6:,.4f}"


def ranking(tenants: dict[str, Client], screen: Console) -> None:
    """The affinity matrix as offered: who is fast at what."""
    client = next(iter(tenants.values()))
    speeds = {
        (cell["job_class"], pool["site"]): cell["believed"] or 0.0
        for pool in client.offers()
        for cell in pool["affinities"]
        if cell["gpus"] == 1
    }
    table = Table(title="Offered speed, samples/s on one GPU (fastest in bold)")
    table.add_column("class")
    for site in SITES:
        table.add_column(site.name, justify="right")
    for job_class in sorted({c for c, _ in speeds}):
        row = [speeds.get((job_class, site.name), 0.0) for site in SITES]
        table.add_row(
            job_class,
            *(f"[bold]{v:,.0f}[/bold]" if v == max(row) else f"{v:,.0f}" for v in row),
        )
    screen.print(table)


def watch(
    tenants: dict[str, Client],
    screen: Console,
    *,
    done: Callable[[], bool],
    alive: Callable[[], list[Child]],
    patience_s: float,
) -> None:
    """Show all jobs live until everything is settled. Raises NotStarted when a process ends."""
    deadline = time.monotonic() + patience_s
    with Live(console=screen, refresh_per_second=4, transient=True) as live:
        while not done():
            live.update(_progress(tenants))
            for child in alive():
                raise NotStarted(f"{child.name} ended:\n{child.last_lines()}")
            if time.monotonic() > deadline:
                raise NotStarted(f"the jobs were not all settled within {patience_s:g} s")
            time.sleep(LOOK_EVERY_S)


def _progress(tenants: dict[str, Client]) -> Table:
    table = Table(title="Jobs")
    for name in ("job", "state", "site"):
        table.add_column(name)
    for name in ("progress", "samples/s", "loss", "spent"):
        table.add_column(name, justify="right")
    jobs = sorted((j for c in tenants.values() for j in c.jobs()), key=lambda j: j["name"])
    for job in jobs:
        tone = TONES.get(job["state"], "yellow")
        share = min(job["samples_done"] / job["samples"], 1.0)
        speed = f"{job['samples_per_s']:,.0f}" if job["samples_per_s"] else ""
        loss = job["loss"]
        table.add_row(
            job["name"],
            f"[{tone}]{job['state']}[/{tone}]",
            job["site"] or "",
            f"{share:.0%}",
            speed,
            f"{loss:.3f}" if loss is not None else "",
            job["spent"],
        )
    return table


def results(rows: list[dict[str, Any]], screen: Console) -> None:
    """The end: one line for each job."""
    table = Table(title="Result (price: credits per GPU-hour of the last round; paid: credits)")
    for name in ("job", "class", "state", "site"):
        table.add_column(name, no_wrap=True)
    for name in ("predicted samples/s", "measured samples/s", "loss", "price", "paid"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["job"],
            row["class"],
            row["state"],
            row["site"] or "",
            f"{row['predicted']:,.0f}" if row["predicted"] else "",
            f"{row['measured']:,.0f}" if row["measured"] else "",
            f"{row['loss']:.3f}" if row["loss"] is not None else "",
            money(row["price_micro"]),
            money(row["spent_micro"]),
        )
    screen.print(table)


def statements(screen: Console) -> None:
    """What each member earned and paid."""
    from federation.models import Member, Venue
    from federation.selectors.accounts import statement

    currency = Venue.objects.get(name="main").currency
    table = Table(title=f"Statements, {currency} credits")
    table.add_column("member")
    for name in ("its sites earned", "its tenants paid", "stability transfers", "net"):
        table.add_column(name, justify="right")
    total = 0
    for member in Member.objects.all():
        s = statement(member, currency=currency)
        total += s.net_micro
        table.add_row(
            member.name,
            money(s.earned_micro),
            money(s.paid_micro),
            money(s.transfers_micro),
            money(s.net_micro),
        )
    table.add_section()
    table.add_row("sum", "", "", "", money(total))
    screen.print(table)


def verdict(summary: dict[str, Any], screen: Console) -> bool:
    """Say whether everything held; the same conditions decide the exit code."""
    checks = {
        f"{summary['succeeded']} of {summary['jobs']} jobs succeeded": summary["succeeded"]
        == summary["jobs"],
        f"{summary['sites_used']} sites were used": summary["sites_used"] >= len(SITES),
        f"{summary['rounds_certified']} of {summary['rounds']} rounds carry a certificate that "
        "holds (feasible, nobody trades at a loss, prices support it, money adds up)": summary[
            "rounds_certified"
        ]
        == summary["rounds"]
        > 0,
        f"the ledger sums to {summary['ledger_sum_micro']} micro-credits": summary["ledger_holds"],
    }
    for sentence, holds in checks.items():
        screen.print(f"{'[green]✔[/green]' if holds else '[red]✘[/red]'} {sentence}")
    if summary["forecast_error_median"] is not None:
        screen.print(f"  median forecast error {summary['forecast_error_median']:.1%}")
    screen.print(f"  {summary['seconds']} s")
    return all(checks.values())
