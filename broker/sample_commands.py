"""`hanse samples`: measurements that were held back, and what models have learned."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import Annotated

import typer

from broker.command_line import Out, Output, set_up, show

app = typer.Typer(no_args_is_help=True, help="Measured steps: held back, learned from.")
Site = Annotated[str | None, typer.Option(help="of this site only")]
Pool = Annotated[str | None, typer.Option(help="of pools of this name only")]
Class = Annotated[str | None, typer.Option("--class", help="of this class only")]


@app.command("quarantined")
def samples_quarantined(
    site: Site = None,
    pool: Pool = None,
    job_class: Class = None,
    code: Annotated[str | None, typer.Option(help="held back for this only")] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=87600, help="how far to look back")] = 24.0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="rows at most")] = 50,
    output: Out = Output.TABLE,
) -> None:
    """Measurements that nothing is learned from, newest first, each with the reason."""
    now = set_up()
    from federation.models import User
    from federation.selectors.samples import Named, quarantined_shown, quarantined_visible

    rows = quarantined_visible(
        User(is_staff=True),
        Named(site, pool, job_class),
        code=code,
        since=now - timedelta(hours=hours),
    )
    newest = islice(rows.order_by("-received_at", "-pk").iterator(), limit)
    keys = ("lease", "seq", "site", "pool", "class", "received_at", "code", "why")
    shown = [quarantined_shown(row) for row in newest]
    show([{key: row[key] for key in keys} for row in shown], output)


@app.command("models")
def samples_models(
    site: Site = None, pool: Pool = None, job_class: Class = None, output: Out = Output.TABLE
) -> None:
    """How far the throughput model of each class on each pool is, and why there is none."""
    set_up()
    from federation.models import User
    from federation.selectors.samples import Named, model_shown, models_visible

    rows = models_visible(User(is_staff=True), Named(site, pool, job_class))
    show([model_shown(row) for row in rows.order_by("pk")], output)
