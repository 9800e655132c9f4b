"""What watching costs: a tick with nothing moved, and a tick with many tables moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import dagster as dg

from bench.beds import MARTS, TABLES, Beds
from bench.figures import Aim, Figure
from bench.timing import in_turn, seconds
from bench.watched import Watched

IDLE_ROUNDS = 15
MOVED_TABLES = 500
MOVED_ROUNDS = 2


def idle_tick(beds: Beds) -> Iterator[Figure]:
    """AWS answers from a model without delay, so the time is our own code and what it reads of Dagster's log."""
    watched = beds.watched
    watched.world.wait(600)
    watched.settle()
    asked = len(watched.world.queries)

    @dg.sensor(job_name="tickit_refresh")
    def empty(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason("nothing to do")

    def look() -> None:
        found = watched.tick()
        assert not found.asset_events and not found.run_requests, found

    def look_at_nothing() -> None:
        with dg.build_sensor_context(watched.instance, repository_def=watched.repository) as context:
            empty.evaluate_tick(context)

    idle, floor = in_turn(IDLE_ROUNDS, look, look_at_nothing)
    statements = len(watched.world.queries) - asked
    what = f"tick, nothing moved, {TABLES:,} tables, {MARTS} marts"
    yield Figure(f"{what}: own code", idle, "s", floor, "an empty sensor's tick", Aim("value", 0.1))
    yield Figure(f"{what}: SQL statements", statements, "", aim=Aim("value", 0))


def moved_tables(beds: Beds) -> Iterator[Figure]:
    """A whole tick: looking, deciding, and Dagster's storing of the events; against the storing alone.

    What the tick stores and what the floor stores alternate event by event, so that both meet the same machine; the
    worse round counts.
    """
    watched = beds.watched
    rounds: list[tuple[float, float]] = []
    opened = 0
    for _ in range(MOVED_ROUNDS):
        watched.move(MOVED_TABLES)
        sessions = watched.world.sessions
        looking, events = _look(watched)
        opened = max(opened, watched.world.sessions - sessions)
        moved = [event for event in events if isinstance(event, dg.AssetMaterialization)]
        assert len(moved) == MOVED_TABLES, f"{len(moved)} tables were reported, {MOVED_TABLES} moved"
        # The same events in another order: no table is stored twice in a row.
        storing, alone = _store_in_turn(
            watched.instance, events, [*moved[MOVED_TABLES // 2 :], *moved[: MOVED_TABLES // 2]]
        )
        rounds.append((looking + storing, alone))
        watched.settle()
    whole, alone = max(rounds, key=lambda one: one[0] / one[1])
    what = f"tick with {MOVED_TABLES} of {TABLES:,} tables moved"
    yield Figure(what, whole, "s", alone, f"storing {MOVED_TABLES} materializations", Aim("ratio", 1.2))
    yield Figure(f"{what}: SQL sessions", opened, "", aim=Aim("value", 1))


def _look(watched: Watched) -> tuple[float, list[object]]:
    """Seconds of the evaluation, and the events that are to be stored."""
    events: list[object] = []

    def evaluate() -> None:
        found = watched.evaluate()
        events.extend(found.asset_events)
        watched.cursor = found.cursor

    return seconds(evaluate), events


def _store_in_turn(
    instance: dg.DagsterInstance, events: Sequence[object], others: Sequence[object]
) -> tuple[float, float]:
    """Seconds of storing each list, as the daemon does it: one event after the other."""
    mine = floor = 0.0
    for event, other in zip_longest(events, others):
        if event is not None:
            mine += seconds(lambda event=event: instance.report_runless_asset_event(event))  # type: ignore[misc]
        if other is not None:
            floor += seconds(lambda other=other: instance.report_runless_asset_event(other))  # type: ignore[misc]
    return mine, floor
