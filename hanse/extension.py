"""Commands of other packages, found by entry point and imported only when they are needed.

`hanse submit` runs where Django is not installed, and starts as fast where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from hanse.errors import ApiRefused, HanseError
from hanse.screen import complain

if TYPE_CHECKING:
    from typer._click.core import Command, Context

GROUP = "hanse.commands"


class ExtensibleGroup(TyperGroup):
    """Our own commands, then those that entry points add.

    `merged` names the entry points whose commands stand at top level, with the names of these
    commands: so listing them imports nothing. Every other entry point is one sub-group.
    """

    merged: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def list_commands(self, ctx: Context) -> list[str]:
        names = [*super().list_commands(ctx), *self._merged_from()]
        others = (point.name for point in entry_points(group=GROUP))
        return [*names, *sorted(set(others) - self.merged.keys() - set(names))]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        source = self._merged_from().get(cmd_name, cmd_name)
        if source in self.merged and source == cmd_name:
            return None  # `hanse broker` is not a command, only where commands come from
        point = _entry_point(source)
        if point is None:
            return _absent(cmd_name, source) if source in self.merged else None
        try:
            group = get_group(point.load())
        except ImportError as error:
            return _broken(cmd_name, source, error)
        if source in self.merged:
            return group.commands.get(cmd_name)
        group.name = cmd_name
        return group

    def invoke(self, ctx: Context) -> object:
        """Every `HanseError` of a command ends here: a sentence and a code, never a traceback."""
        try:
            return super().invoke(ctx)
        except HanseError as error:
            status = f", {error.status}" if isinstance(error, ApiRefused) else ""
            complain(f"hanse: {error} ({error.code}{status})")
            raise typer.Exit(1) from None

    def _merged_from(self) -> dict[str, str]:
        """Command name -> the entry point it comes from."""
        return {name: source for source, names in self.merged.items() for name in names}


def _entry_point(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=GROUP, name=name)), None)


def _absent(name: str, extra: str) -> Command:
    return _stub(name, f"`hanse {name}` needs the server: pip install 'hanse[{extra}]'")


def _broken(name: str, source: str, error: ImportError) -> Command:
    remedy = f"pip install 'hanse[{source}]'"
    return _stub(name, f"`hanse {name}` cannot be loaded ({error}); install it with: {remedy}")


def _stub(name: str, sentence: str) -> Command:
    """Stands in for a command that is not installed; says so when it is used."""

    def refuse() -> None:
        complain(f"hanse: {sentence}")
        raise typer.Exit(1)

    return TyperCommand(
        name,
        callback=refuse,
        help="(not installed)",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
    )
