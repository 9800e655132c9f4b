"""The command line, `zeroetl`: one module a command, imported when it is asked for so that `--help` stays quick."""

from __future__ import annotations

import difflib
import importlib

import click

_COMMANDS = {
    "demo": "Run the whole path on this machine and watch it in Dagster's UI.",
    "grants": "Print the SQL that gives the Redshift identities their rights.",
    "local": "The embedded AWS: start, stop, look, load sample data.",
}


class _Lazy(click.Group):
    """Lists the commands without importing them; `zeroetl x` imports `zeroetl_dagster.cli.x` and runs its `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"zeroetl_dagster.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and (close := difflib.get_close_matches(args[0], _COMMANDS, n=1)):
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{close[0]}'?")  # click looks at loaded ones only
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zeroetl-dagster")
def main() -> None:
    """Orchestrate AWS zero-ETL integrations and RDS snapshot exports with Dagster.

    \b
    Try it without an account:   zeroetl demo
    Only the embedded AWS:       zeroetl local up --detach && eval "$(zeroetl local env)"
    """
