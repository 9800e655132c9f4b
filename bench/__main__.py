"""The command line: which benchmarks to run, and where the figures go."""

from __future__ import annotations

import sys
import time
import traceback
import warnings
from pathlib import Path

import click

from bench import figures
from bench.beds import Beds
from bench.registry import BENCHMARKS, Benchmark, named

_NAMES = "\n".join(f"  {b.name:<16}{b.about}" for b in BENCHMARKS)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    help=f"""Measure; print every figure as a ratio to a floor taken in the same run.

Without NAMES everything runs, which takes 6 to 11 minutes on two cores. `make bench ARGS=idle-tick` runs one.

\b
{_NAMES}
""",
)
@click.argument("names", nargs=-1)
@click.option("--list", "list_only", is_flag=True, help="Name the benchmarks and what they measure, and end.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Append a JSON line a figure."
)
def main(names: tuple[str, ...], list_only: bool, json_path: Path | None) -> None:
    if list_only:
        click.echo(_NAMES)
        return
    chosen = _chosen(names)
    warnings.simplefilter("ignore")
    done: list[tuple[str, figures.Figure]] = []
    failed: list[str] = []
    with Beds() as beds:
        for benchmark in chosen:
            found = _run(benchmark, beds)
            if found is None:
                failed.append(benchmark.name)
                continue
            done.extend((benchmark.name, figure) for figure in found)
            if json_path is not None:
                figures.append(json_path, benchmark.name, found)
    click.echo(figures.table(done))
    if failed:
        raise click.ClickException(f"did not end: {', '.join(failed)} (their errors are above)")


def _chosen(names: tuple[str, ...]) -> list[Benchmark]:
    unknown = [name for name in names if name not in {b.name for b in BENCHMARKS}]
    if unknown:
        raise click.UsageError(
            f"no benchmark is called {', '.join(unknown)}; there are {', '.join(b.name for b in BENCHMARKS)}"
        )
    return [named(name) for name in names] if names else list(BENCHMARKS)


def _run(benchmark: Benchmark, beds: Beds) -> list[figures.Figure] | None:
    """None when it failed: the others go on."""
    click.echo(f"{benchmark.name}: {benchmark.about}", err=True)
    begun = time.monotonic()
    try:
        found = list(benchmark.load()(beds))
    except Exception:
        traceback.print_exc(file=sys.stderr)
        return None
    click.echo(f"{benchmark.name}: {time.monotonic() - begun:.0f} s", err=True)
    return found


if __name__ == "__main__":
    main(prog_name="python -m bench")
