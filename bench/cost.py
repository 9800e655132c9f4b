"""What watching costs on Redshift Serverless, for a source that changes once an hour.

A day is simulated, not waited for: the real sensor ticks every 30 seconds of a model's clock, and the rule of the
embedded AWS's meter behind SYS_SERVERLESS_USAGE (per second, at least 60 a wake-up) is applied to the sessions that it
really opens, and to the integration's ingestions, which wake the workgroup too. A session and an ingestion are taken
to last a second. Refreshes of marts, the same whoever watches, are left out.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

from bench.beds import Beds
from bench.figures import Figure
from bench.watched import Watched
from zeroetl_dagster.local.store import Store
from zeroetl_dagster.local.warehouse.usage import Meter

TABLES = 7
TICK_SECONDS = 30
HOUR_SECONDS = 3_600
DAY_SECONDS = 86_400
BUSY_SECONDS = 1.0
METRIC_DELAY_SECONDS = 120.0  # CloudWatch shows Redshift's data points minutes late
RPU = 8


def rpu_seconds(beds: Beds) -> Iterator[Figure]:
    """The sensor, and whoever asks Redshift at every look, against the ingestions that nobody watches."""
    folder = beds.folder("cost")
    watched = Watched(folder / "watched", tables=TABLES, marts=0)
    try:
        watched.world.metric_delay = METRIC_DELAY_SECONDS
        watched.settle()
        changes, looks = _day(watched)
    finally:
        watched.close()
    every_tick = [changes[0] + TICK_SECONDS * number for number in range(DAY_SECONDS // TICK_SECONDS)]
    floor = _billed(folder, changes)
    for sessions, who in ((looks, "the sensor"), (every_tick, f"SQL every {TICK_SECONDS} s")):
        what = f"RPU seconds billed a day, {who} ({len(sessions):,} sessions)"
        yield Figure(what, _billed(folder, changes + sessions), "RPU s", floor, "the ingestions alone")


def _day(watched: Watched) -> tuple[list[float], list[float]]:
    """When the source changed, and when the sensor opened a session, on the model's clock."""
    world = watched.world
    world.wait(HOUR_SECONDS)
    watched.settle()
    changes: list[float] = []
    looks: list[float] = []
    reported = 0
    for second in range(0, DAY_SECONDS, TICK_SECONDS):
        world.wait(TICK_SECONDS)
        if second % HOUR_SECONDS == HOUR_SECONDS // 2:
            world.ingest(watched.names[0])
            changes.append(world.now)
        # The probe asks for an hour; the model would go through all that was ever published.
        world.published = [point for point in world.published if point[1] > world.now - HOUR_SECONDS]
        sessions = world.sessions
        reported += len(watched.tick().asset_events)
        looks += [world.now] * (world.sessions - sessions)
    assert reported == len(changes), f"{reported} of {len(changes)} changes were reported"
    return changes, looks


def _billed(folder: Path, busy: list[float]) -> int:
    """RPU seconds of a workgroup that worked at these times."""
    store = Store(folder / "aws.sqlite")
    try:
        meter = Meter(store, uuid.uuid4().hex)
        meter.rpu = RPU
        for moment in sorted(busy):
            meter.busy(moment, moment + BUSY_SECONDS)
        return sum(usage.charged_seconds for usage in meter.recorded())
    finally:
        store.close()
