"""`hanse operators`: who may sign in to the console, and operators' own tokens."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from broker.command_line import ACTOR, do, fail, set_up

app = typer.Typer(no_args_is_help=True, help="Who may sign in to the console.")


@app.command("token")
def operators_token(
    name: str = "operator", days: Annotated[int, typer.Option(min=1, max=366)] = 30
) -> None:
    """Print an API token that acts for an operator. Shown once."""
    now = set_up()
    from federation.models import User
    from federation.services.access import operator_token_issue

    user: Any = User.objects.filter(username=name, is_staff=True).first()
    if user is None:
        fail(f"There is no operator called {name}.", "not_found")
    typer.echo(do(operator_token_issue, user=user, actor=ACTOR, days=days, now=now))


@app.command("password")
def operators_password(name: str = "operator") -> None:
    """Give an operator a new random password, printed once; for one that was lost."""
    now = set_up()
    from federation.models import User
    from federation.services.access import operator_password_reset

    user: Any = User.objects.filter(username=name, is_staff=True).first()
    if user is None:
        fail(f"There is no operator called {name}.", "not_found")
    typer.echo(operator_password_reset(user=user, actor=ACTOR, now=now))
