"""No update lost, none invented, whatever the order of changes, ticks, crashes and outages.

Every table of the model has a generation that goes up when its data changed. A version stands for the generation that
was there when it was first found: two versions of one generation are an invented update, a last version of an old
generation a lost one.
"""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zeroetl_dagster.replication import changes
from zeroetl_dagster.replication.changes import Reported, TableMoved, advance
from zeroetl_dagster.replication.cursor import decode
from zeroetl_dagster.replication.observe import declared_digest, read_snapshot
from zeroetl_dagster.replication.probe import probe
from zeroetl_dagster.replication.signals import Limits, base, why_sql
from zeroetl_dagster.settings.replication import TableName
from zeroetl_dagster_tests.replication.world import DATABASE, World

NAMES = ("a", "b", "c", "d", "never")


class Watcher:
    """The sensor and the Dagster instance it reports to, over a model."""

    def __init__(self, world: World, limits: Limits, host_skew: float = 0.0) -> None:
        self.world = world
        self.limits = limits
        self.host_skew = host_skew
        self.stored: str | None = None
        self.declared = list(NAMES)
        self.versions: dict[TableName, Reported] = {}
        self.checks: dict[TableName, str] = {}
        self.generation_of: dict[tuple[TableName, str], int] = {}
        self.version_of: dict[tuple[TableName, int], str] = {}

    def tick(self, *, store: int | None = None, save_cursor: bool = True, redshift: bool = True) -> bool:
        """One tick; True when SQL was asked. `store` events survive a crash (None: all)."""
        self.world.now += 0.001  # looking takes time
        world, now = self.world, self.world.now + self.host_skew
        seen = probe(
            world,
            world,
            integration_name="zeroetl-tickit",
            namespace="AWS/Redshift",
            now=datetime.fromtimestamp(now, UTC),
        )
        tables = [TableName("public", name) for name in self.declared]
        declared = declared_digest(tables)
        cursor = base(decode(self.stored) if self.stored is not None else None, seen)
        assert cursor is not None
        reason = why_sql(cursor, seen, self.limits, declared=declared, now=now)
        snapshot = None
        if reason is not None and redshift:
            snapshot = read_snapshot(world, cursor, self.limits, database=DATABASE, declared=declared, now=now)
        result = advance(
            cursor, seen, snapshot, self.limits, now=now, tables=tables, declared=declared, reported=self.versions
        )
        assert len(result.events) <= self.limits.events_per_tick
        if snapshot is not None:
            self._note_generations(result)
        for event in result.events[: len(result.events) if store is None else store]:
            self._store(event)
        if save_cursor and store is None:
            self.stored = result.cursor.encode()
            assert decode(self.stored) == result.cursor
        return snapshot is not None

    def _note_generations(self, result: changes.Advance) -> None:
        found = {event.table: event.move.version for event in result.events if isinstance(event, TableMoved)}
        found.update({table: move.version for table, move in result.cursor.pending.items()})
        for table, version in found.items():
            generation = self.world.tables[table].generation
            self.generation_of.setdefault((table, version), generation)

    def _store(self, event: changes.Event) -> None:
        if isinstance(event, TableMoved):
            synced = self.versions.get(event.table, Reported()).synced
            self.versions[event.table] = Reported(event.move.version, event.move.marker, synced)
            known = self.generation_of[event.table, event.move.version]
            earlier = self.version_of.setdefault((event.table, known), event.move.version)
            assert earlier == event.move.version, f"invented: {event.table} was {earlier}, now {event.move.version}"
        else:
            last = self.versions.get(event.table, Reported())
            self.versions[event.table] = Reported(last.version, last.marker, event.synced)
            self.checks[event.table] = event.state

    def settle(self) -> None:
        """Everything works again, and time passes."""
        for name in NAMES:
            self.world.reload(name)
        self.world.metrics_on = True
        for _ in range(45):
            self.world.wait(61)
            self.tick()

    def check(self) -> None:
        for table, state in self.world.tables.items():
            if table.table not in self.declared:
                continue
            last = self.versions.get(table)
            assert last is not None, f"{table} was never reported"
            known = self.generation_of[table, last.version]
            assert known == state.generation, f"lost: {table} is at {state.generation}, reported was {known}"
            assert self.checks.get(table) == state.state


_subset = st.lists(st.sampled_from(NAMES[:4]), min_size=1, max_size=4, unique=True)
_operation = st.one_of(
    st.tuples(st.just("ingest"), _subset),
    st.tuples(st.just("ingest"), _subset),
    st.tuples(st.just("late"), _subset, st.sampled_from([0.001, 1.0, 60.0, 119.0])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.0005, 1.0, 30.0, 61.0, 200.0, 1000.0])),
    st.tuples(st.just("tick")),
    st.tuples(st.just("tick")),
    st.tuples(st.just("tick")),
    st.tuples(st.just("crash"), st.integers(0, 3)),
    st.tuples(st.just("tick_without_redshift")),
    st.tuples(st.just("sleep"), st.sampled_from([5000.0, 86_400.0, 8 * 86_400.0])),
    st.tuples(st.just("lose_cursor")),
    st.tuples(st.just("recreate")),
    st.tuples(st.just("fail"), st.sampled_from(NAMES[:4]), st.sampled_from(["Failed", "ResyncInitiated"])),
    st.tuples(st.just("reload"), st.sampled_from(NAMES[:4])),
    st.tuples(st.just("metrics"), st.booleans()),
    st.tuples(st.just("declare"), st.sampled_from([NAMES, NAMES[:2], NAMES[1:]])),
    st.tuples(st.just("invisible"), st.booleans()),
)


def _apply(watcher: Watcher, operation: tuple) -> None:
    world = watcher.world
    match operation:
        case ("ingest", names):
            world.ingest(*names)
        case ("late", names, seconds):
            world.ingest(*names, late=seconds)
        case ("wait" | "sleep", seconds):
            world.wait(seconds)
        case ("tick",):
            watcher.tick()
        case ("crash", events):
            watcher.tick(store=events)
        case ("tick_without_redshift",):
            watcher.tick(redshift=False)
        case ("lose_cursor",):
            watcher.stored = None
        case ("recreate",):
            world.recreate()
        case ("fail", name, state):
            world.fail(name, state)
        case ("reload", name):
            world.reload(name)
        case ("metrics", on):
            world.metrics_on = on
        case ("declare", names):
            watcher.declared = list(names)
        case ("invisible", hidden):
            world.visible = not hidden


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(_operation, max_size=30),
    st.sampled_from([0.0, 3.0, -400.0, 86_400.0]),
    st.sampled_from([0.0, -120.0, 300.0]),
    st.sampled_from([0.0, 60.0, 400.0, 900.0]),
    st.sampled_from([1, 3, 500]),
)
def test_no_update_is_lost_and_none_invented(
    operations: list[tuple], redshift_skew: float, cloudwatch_skew: float, metric_delay: float, events_per_tick: int
) -> None:
    world = World(redshift_skew=redshift_skew, cloudwatch_skew=cloudwatch_skew, metric_delay=metric_delay)
    world.add(*NAMES)
    watcher = Watcher(world, Limits(events_per_tick=events_per_tick))
    for operation in operations:
        _apply(watcher, operation)
    world.visible = True
    watcher.settle()
    watcher.check()
    world.wait(61)
    assert not watcher.tick(), "an idle tick asked for SQL"
