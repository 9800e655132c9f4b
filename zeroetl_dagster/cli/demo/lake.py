"""The demo after the traffic, the second path: snapshot, export, crawl, marts in Athena, both engines side by side."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from zeroetl_dagster.cli.demo import comparison
from zeroetl_dagster.cli.demo.dagster_dev import Check

if TYPE_CHECKING:
    from zeroetl_dagster.cli.demo.story import Demo

EXPORT_JOB = "tickit_export__export_job"
MARTS_JOB = "tickit_lake_marts_refresh"
MARTS = "tickit_lake_marts"
CHECK = "equals_redshift"
SETTLE_SECONDS = 300.0  # a process start can take a minute on a busy machine


def run(demo: Demo) -> bool:
    """Returns whether every mart in Athena equals its twin in Redshift, by the reconciliation's own verdict."""
    demo.say("the second path: a snapshot of the source as it is now, its export, its catalogue, marts in Athena")
    # Not the day's automated snapshot, which is older than the last sale.
    config = {"ops": {"tickit_export__export": {"config": {"new_snapshot": True}}}}
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    demo.tell(demo.dagster.launch(EXPORT_JOB, config, partition=today), f"export and catalogue of {today}")
    demo.tell(demo.next_run(MARTS_JOB, SETTLE_SECONDS), "marts in Athena, which follow the catalogue by their sensor")
    return _compare(demo)


def _compare(demo: Demo) -> bool:
    demo.say("waiting for the reconciliation, which follows the marts by its sensor")
    compared = comparison.compare_engines()
    verdicts = _verdicts(demo, [f"{MARTS}/{found.mart}" for found in compared])
    for found in compared:
        check = verdicts.get(f"{MARTS}/{found.mart}")
        click.echo(found.table())
        click.echo(f"  reconciliation: {check.description if check else 'no verdict: the check did not run'}")
    good = [c for c in compared if c.equal and (v := verdicts.get(f"{MARTS}/{c.mart}")) is not None and v.passed]
    demo.say(f"{len(good)} of {len(compared)} marts are equal in Athena and Redshift")
    return len(good) == len(compared)


def _verdicts(demo: Demo, marts: list[str]) -> dict[str, Check]:
    """What the check says of each mart, once all of them could be compared or the time is over."""
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        found = {mart: check for mart in marts if (check := demo.dagster.check(mart, CHECK)) is not None}
        open_ones = [check for check in found.values() if check.metadata.get("zeroetl/verdict") == "not comparable"]
        if (len(found) == len(marts) and not open_ones) or time.monotonic() > until:
            return found
        time.sleep(0.5)
