"""`zeroetl demo`: the embedded AWS, TICKIT, `dagster dev` and the whole path through it, told as it happens."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import click

from zeroetl_dagster.cli.local import data_dir, needs_local

if TYPE_CHECKING:
    from zeroetl_dagster.local.folder import DataFolder


@click.command()
@data_dir
@click.option("--once", is_flag=True, help="End by itself; exit 0 only if every mart equals its source.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of Dagster's UI.  [default: 3000, or a free one]")
@click.option("--scale", default=1.0, show_default=True, type=click.FloatRange(0.001, 100), help="TICKIT's size.")
@click.option("--tps", default=20.0, show_default=True, type=click.FloatRange(0.01), help="Ticket sales a second.")
@needs_local
def command(folder: DataFolder, once: bool, port: int | None, scale: float, tps: float) -> None:
    """Run the whole path on this machine: integration, database, replicated tables, marts that refresh by themselves.

    Leaves Dagster's UI running until Ctrl-C, which stops everything it started.
    """
    from zeroetl_dagster.cli.demo.dagster_dev import DagsterDevError
    from zeroetl_dagster.cli.demo.story import Demo
    from zeroetl_dagster.local.landscape import LandscapeError
    from zeroetl_dagster.local.supervisor import AlreadyRunning, StartFailed

    for each in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs with SIGINT ignored
        signal.signal(each, _as_interrupt)
    try:
        with Demo(folder, ui_port=port, scale=scale, tps=tps) as demo:
            equal = demo.run()
            if not once:
                demo.stay()
    except KeyboardInterrupt:
        click.echo(f"\nstopped; the data stays (zeroetl local reset --data-dir {folder.root} deletes it)")
        raise SystemExit(130 if once else 0) from None
    except (AlreadyRunning, StartFailed, DagsterDevError, LandscapeError) as error:
        raise click.ClickException(str(error)) from None
    if not equal:
        raise click.ClickException("a mart differs from its source; see above")


def _as_interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
