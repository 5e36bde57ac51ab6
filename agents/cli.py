"""`hanse agent …`: join a federation, run, measure, show. Exit codes: 2 the configuration,
3 not joined or refused, 4 another protocol version, 1 anything else that can be explained.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agents import checks, leaving
from agents import config as configuration
from agents.client import BrokerClient
from agents.clock import SystemClock
from agents.config import Config
from agents.door import Door
from agents.errors import AgentError, BrokerRefused, ConfigError, NotJoined, ProtocolMismatch
from agents.journal import Journal
from agents.log import to_stderr
from agents.loop import VERSION
from agents.offer import document, limited
from agents.probes.throughput import Measurement, Prober, questions, save
from agents.protocol import OfferDocument, encode
from agents.service import assembled, driver_for, fresh_measurements, serve
from agents.state import Membership, StateFolder
from agents.supply import NOTE

app = typer.Typer(
    name="agent",
    help="The site agent: offers this datacenter's GPUs and runs what is awarded to them.",
    no_args_is_help=True,
)


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The site's YAML file.", show_default=True)
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print.")]
ReasonOption = Annotated[str, typer.Option(help="Tenants and the broker's operators read it.")]
CONFIG = Path("agent.yaml")


@contextmanager
def explained() -> Iterator[None]:
    """An error of ours is one sentence on stderr and an exit code."""
    try:
        yield
    except AgentError as error:
        typer.echo(f"hanse agent: {error}", err=True)
        raise typer.Exit(_exit_code(error)) from None


def _exit_code(error: AgentError) -> int:
    if isinstance(error, ConfigError):
        return 2
    if isinstance(error, NotJoined | BrokerRefused):
        return 3
    return 4 if isinstance(error, ProtocolMismatch) else 1


@app.command()
def join(
    url: Annotated[str, typer.Argument(help="The broker's address.")],
    token: Annotated[str, typer.Argument(help="The one-time token, or - to read it from stdin.")],
    config: ConfigOption = CONFIG,
    again: Annotated[bool, typer.Option(help="Replace an existing credential.")] = False,
) -> None:
    """Trade a one-time token for this site's credential and keep it in the state folder."""
    with explained():
        settings = configuration.load(config)
        address = configuration.broker_url(url, "URL")
        if address != settings.broker:
            raise ConfigError("broker", f"the file says {settings.broker}, not {address}")
        folder = StateFolder(settings.state)
        folder.prepare()
        if (folder.root / "credential.json").exists() and not again:
            raise AgentError("this site has joined already; --again replaces its credential")
        secret = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105 - "-" is no secret
        with BrokerClient(address, str, ca_file=settings.ca_file) as broker:
            reply = broker.join(secret, version=VERSION)
        folder.save(Membership(address, reply.site, reply.site_id, reply.credential))
        typer.echo(f"Joined as {reply.site}. Next: hanse agent run --config {config}")


@app.command()
def run(
    config: ConfigOption = CONFIG,
    stop_jobs: Annotated[
        bool, typer.Option(help="On SIGTERM stop the jobs too, instead of leaving them running.")
    ] = False,
) -> None:
    """Sync, run what is awarded, report. SIGTERM ends the agent and leaves its jobs running."""
    to_stderr()
    with explained(), assembled(configuration.load(config)) as agent:
        serve(agent, stop_jobs=stop_jobs)


@app.command()
def probe(
    config: ConfigOption = CONFIG,
    again: Annotated[bool, typer.Option(help="Measure also what is known.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Measure the speed of every class that has a probe, and keep the results."""
    with explained():
        settings = configuration.load(config)
        folder = StateFolder(settings.state)
        folder.prepare()
        clock = SystemClock()
        kept = [] if again else fresh_measurements(settings, folder, clock)
        known = {item.digest for item in kept}
        missing = [item for item in questions(settings) if item.digest not in known]
        driver = driver_for(settings, root=folder.probes, site="", clock=clock)
        found = [*kept, *Prober(config=settings, driver=driver, clock=clock).answer(missing)]
        save(folder.measured, found)
        _show_probes(found, driver.capacity().cores, output)
        if len(found) < len(questions(settings)):
            raise AgentError("some probes gave no speed; see above")


@app.command()
def offer(config: ConfigOption = CONFIG, output: OutputOption = Output.TABLE) -> None:
    """Show what this site puts on offer by its rules; local users may leave less of it."""
    with explained():
        settings = configuration.load(config)
        folder = StateFolder(settings.state)
        clock = SystemClock()
        door = Door(config=settings, clock=clock, drain_file=folder.drain)
        kept = fresh_measurements(settings, folder, clock)
        _show_offer(
            limited(
                document(settings, [item.offer() for item in kept]),
                {pool.name: door.offered(pool) for pool in settings.pools},
                policy=door.published(),
                notice=door.notice,
            ),
            output,
        )


@app.command()
def status(config: ConfigOption = CONFIG, output: OutputOption = Output.TABLE) -> None:
    """Show what the journal knows: attempts, unsent reports, the last sync."""
    with explained():
        settings = configuration.load(config)
        _show_status(_status(settings), output)


@app.command()
def drain(config: ConfigOption = CONFIG, reason: ReasonOption = "maintenance") -> None:
    """Take no new lease; what runs goes on. The running agent hears of it within seconds."""
    with explained():
        leaving.close(configuration.load(config), reason=reason, leave=False)
        typer.echo("Draining: nothing new is taken. Open again: hanse agent open")


@app.command("open")
def open_again(config: ConfigOption = CONFIG) -> None:
    """Take new leases again after `drain` or `leave`."""
    with explained():
        closed = leaving.reopen(configuration.load(config))
        typer.echo("Open again." if closed else "The site was open.")


@app.command()
def leave(
    config: ConfigOption = CONFIG,
    reason: ReasonOption = "maintenance",
    limit: Annotated[float, typer.Option(min=1.0, help="Seconds to wait for the end.")] = 600.0,
) -> None:
    """Take nothing new, hand back what runs with its grace, end the agent when all is told."""
    with explained():
        settings = configuration.load(config)
        leaving.close(settings, reason=reason, leave=True)
        left = leaving.wait_for_end(settings, limit_s=limit)
        if left.attempts or left.unsent:
            raise AgentError(
                f"the agent does not run and holds {left.attempts} attempts and {left.unsent} "
                "reports: start it, it hands them over and ends"
            )
        typer.echo("Left: nothing runs here, all reports are with the broker.")


@app.command()
def rotate(config: ConfigOption = CONFIG) -> None:
    """Replace this site's credential; a running agent takes the new one by itself."""
    with explained():
        settings = configuration.load(config)
        folder = StateFolder(settings.state)
        old = folder.membership(settings.broker)
        with BrokerClient(
            settings.broker, lambda: old.credential, ca_file=settings.ca_file
        ) as broker:
            reply = broker.rotate()
        folder.save(Membership(old.broker, old.site, old.site_id, reply.credential))
        typer.echo(f"Rotated. The old credential works for {reply.old_valid_s:g} s more.")


@app.command()
def selftest(
    config: ConfigOption = CONFIG,
    limit: Annotated[
        float, typer.Option(min=1.0, max=3600.0, help="Seconds for each job, its queue included.")
    ] = 120.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run tiny jobs through the driver in each pool and show what works. Needs no broker."""
    with explained():
        settings = configuration.load(config)
        good = checks.selftest(settings, limit_s=limit, as_json=output is Output.JSON)
    raise typer.Exit(0 if good else 1)


@app.command()
def doctor(config: ConfigOption = CONFIG, output: OutputOption = Output.TABLE) -> None:
    """Look at configuration, host, disk, scheduler, GPUs and the way to the broker."""
    with explained():
        settings = configuration.load(config)
        good = checks.doctor(settings, config, as_json=output is Output.JSON)
    raise typer.Exit(0 if good else 1)


def _status(settings: Config) -> dict[str, Any]:
    folder = StateFolder(settings.state)
    if not folder.journal.exists():
        raise NotJoined(f"there is no journal in {settings.state}: the agent has not run yet")
    journal = Journal(folder.journal, read_only=True)
    try:
        attempts = journal.attempts()
        return {
            "broker": settings.broker,
            "last_sync": json.loads(journal.noted("last_sync") or "null"),
            "unsent_reports": journal.unsent(),
            "refused_reports": encode(journal.refusals()),
            "rules": json.loads(journal.noted(NOTE) or "null"),
            "attempts": [
                {
                    "attempt": a.attempt,
                    "state": str(a.state),
                    "job": a.order.spec.job if a.order else None,
                    "pool": a.order.pool if a.order else None,
                    "gpus": a.order.gpus if a.order else 0,
                    "contract": a.contract,
                    "progress": encode(a.progress()),
                    "reason": str(a.exit.reason) if a.exit else None,
                    "unsent_reports": journal.unsent(a.attempt),
                }
                for a in attempts
            ],
        }
    finally:
        journal.close()


def _show_status(value: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps(value, indent=2))
        return
    last = value["last_sync"]
    typer.echo(f"broker {value['broker']}, last answer {last['at'] if last else 'never'}")
    typer.echo(f"{value['unsent_reports']} reports unsent, {len(value['refused_reports'])} refused")
    _show_rules(value["rules"] or {})
    table = _table("attempt", "state", "job", "pool", "GPUs", "samples", "samples/s", "unsent")
    for item in value["attempts"]:
        rate = item["progress"]["samples_per_s"]
        state = item["state"] if item["reason"] is None else f"{item['state']}: {item['reason']}"
        table.add_row(
            _plain(item["attempt"]),
            state,
            _plain(item["job"] or ""),
            _plain(item["pool"] or ""),
            str(item["gpus"]),
            str(item["progress"]["samples"]),
            "" if rate is None else f"{rate:.4g}",
            str(item["unsent_reports"]),
        )
    Console().print(table)


def _show_rules(value: dict[str, Any]) -> None:
    """What closes the site, or a part of it, as the agent last saw it."""
    if value.get("draining") is not None:
        what = "leaving" if value["leaving"] else "draining"
        typer.echo(f"{what}: {_plain(value['draining'])}")
    if value.get("trouble"):
        kept = "the last good rules stand" if value["in_force"] else "no new lease is taken"
        typer.echo(f"policy: {value['trouble']}; {kept}")
    if value.get("supply_trouble"):
        typer.echo(f"what local users leave is not known: {value['supply_trouble']}")
    for pool, gpus in (value.get("offered") or {}).items():
        typer.echo(f"{pool}: {gpus} GPUs on offer")


def _show_offer(value: OfferDocument, output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps(encode(value), indent=2))
        return
    pools = _table("pool", "GPU", "GPUs", "reserve, credits/GPU-h")
    for pool in value.pools:
        pools.add_row(pool.name, pool.gpu, str(pool.gpus), pool.reserve)
    speeds = _table("class", "pool", "GPUs", "samples/s", "source")
    for item in value.affinities:
        rate = f"{item.samples_per_s:.4g}"
        speeds.add_row(item.job_class, item.pool, str(item.gpus), rate, item.source)
    Console().print(pools, speeds)
    if value.note:
        typer.echo(f"note: {value.note}")


def _show_probes(found: list[Measurement], cores: int, output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps(encode(found), indent=2))
        return
    table = _table("class", "pool", "GPUs", "samples/s", "lines", "measured at")
    for item in found:
        rate = f"{item.samples_per_s:.4g}"
        table.add_row(
            item.job_class, item.pool, str(item.gpus), rate, str(item.lines), item.measured_at
        )
    Console().print(table)
    typer.echo(f"{cores} cores")


def _plain(text: str) -> str:
    """Names come from outside: no markup and no control characters on the operator's terminal."""
    return escape("".join(c if c.isprintable() else "?" for c in text[:64]))


def _table(*names: str) -> Table:
    table = Table()
    for name in names:
        table.add_column(name)
    return table
