"""What 1,000 replicated tables cost when the code location is loaded."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg

from bench.beds import TABLES, Beds
from bench.figures import Aim, Figure
from bench.timing import in_turn
from bench.watched import settings_of
from zeroetl_dagster.components.zero_etl_integration import build_zero_etl_definitions
from zeroetl_dagster.replication.assets import build_table_specs
from zeroetl_dagster.settings.replication import TableName

ROUNDS = 8
PROCESS_ROUNDS = 4
NAMES = [TableName("public", f"t{number:04d}") for number in range(TABLES)]
WITHIN = Aim("ratio", 1.2)


def load(beds: Beds) -> Iterator[Figure]:
    """From the settings to the asset graph, as a code server does it."""
    settings, columns = settings_of(NAMES), dict.fromkeys(NAMES, ())
    ours, floor = in_turn(
        ROUNDS,
        lambda: _loaded(dg.Definitions(assets=build_table_specs(settings, columns))),
        lambda: _loaded(dg.Definitions(assets=_specs())),
        prepare=gc.collect,
        take=min,
    )
    yield Figure(f"{TABLES:,} tables as assets", ours, "s", floor, "the same AssetSpecs by hand", WITHIN)
    ours, floor = in_turn(
        ROUNDS,
        lambda: _loaded(pipeline()),
        lambda: _loaded(dg.Definitions(assets=_specs(), asset_checks=[_checks("synced"), _checks("not_empty")])),
        prepare=gc.collect,
        take=min,
    )
    what = f"a whole pipeline: {TABLES:,} tables, {2 * TABLES:,} checks, jobs, sensor"
    yield Figure(what, ours, "s", floor, "the same specs and checks by hand", WITHIN)
    ours, floor = in_turn(
        PROCESS_ROUNDS,
        lambda: _in_a_process(pipeline),
        lambda: _in_a_process(bare),
        take=min,
    )
    yield Figure("the same in a fresh process", ours, "s", floor, f"imports and {TABLES:,} bare AssetSpecs", WITHIN)


def pipeline() -> dg.Definitions:
    """What the component of a pipeline of so many tables gives."""
    definitions = build_zero_etl_definitions(settings_of(NAMES), dict.fromkeys(NAMES, ()))
    return dg.Definitions.merge(definitions, dg.Definitions(resources={"warehouse": object()}))


def bare() -> dg.Definitions:
    """As many assets of which nothing is said but the key."""
    return dg.Definitions(assets=[dg.AssetSpec(["tickit", *name]) for name in NAMES])


def _specs() -> list[dg.AssetSpec]:
    """What a user would write for each table without this project."""
    return [
        dg.AssetSpec(
            ["tickit", *name],
            deps=[["tickit", "database"]],
            group_name="tickit",
            kinds={"redshift", "table", "postgresql"},
            metadata={
                "zeroetl/integration": "tickit",
                "dagster/table_name": f"tickit_zetl.{name}",
                "dagster/storage_kind": "redshift",
            },
            description=f"`tickit.{name}` of `tickit-source`.",
        )
        for name in NAMES
    ]


def _checks(check: str) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name=check, specs=[dg.AssetCheckSpec(check, asset=["tickit", *name]) for name in NAMES], can_subset=True
    )
    def checks() -> Iterator[dg.AssetCheckResult]:
        yield from ()

    return checks


def _loaded(definitions: dg.Definitions) -> None:
    found = len(definitions.get_repository_def().asset_graph.get_all_asset_keys())
    assert found >= TABLES, f"{found} assets were loaded, not {TABLES}"


def _in_a_process(made: Callable[[], dg.Definitions]) -> None:
    """Load it in a new process; the same modules are imported for each."""
    program = f"from bench import loading; loading._loaded(loading.{made.__name__}())"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
