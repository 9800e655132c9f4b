"""Waiting until the tables of a new database are there, with progress a person can follow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zeroetl_dagster.connections.redshift import RedshiftUnavailable
from zeroetl_dagster.connections.waiting import Backoff, wait_for
from zeroetl_dagster.replication import activity
from zeroetl_dagster.replication.activity import SYNCED, TRANSITIONAL_STATES, IntegrationRow, TableState
from zeroetl_dagster.replication.database import SessionFactory
from zeroetl_dagster.settings.replication import TableName

# A table that is declared but not listed may still turn up while the others are already loaded.
_ABSENT_GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Seeding:
    """How far the first load is. `wanted` is None when the tables are whatever the filter lets through."""

    integration: IntegrationRow | None
    tables: dict[TableName, TableState]
    wanted: tuple[TableName, ...] | None
    unreachable: str | None = None
    unchanged_seconds: float = 0.0
    absent: tuple[TableName, ...] = field(init=False)

    def __post_init__(self) -> None:
        absent = tuple(name for name in self.wanted or () if name not in self.tables)
        object.__setattr__(self, "absent", absent)

    @property
    def states(self) -> list[TableState]:
        """The states of the wanted tables that are listed."""
        names = self.tables if self.wanted is None else [name for name in self.wanted if name in self.tables]
        return [self.tables[name] for name in names]

    @property
    def synced(self) -> list[TableState]:
        return [state for state in self.states if state.state == SYNCED]

    @property
    def failed(self) -> list[TableState]:
        """Tables that came to an end which is not Synced."""
        return [state for state in self.states if state.state != SYNCED and state.state not in TRANSITIONAL_STATES]

    @property
    def done(self) -> bool:
        """Whether nothing more is to be waited for. Failed and missing tables are findings, not reasons to wait on."""
        if self.unreachable is not None or self.integration is None:
            return False
        if self.integration.state != "CdcRefreshState" or len(self.synced) + len(self.failed) < len(self.states):
            return False
        return (bool(self.states) and not self.absent) or self.unchanged_seconds >= _ABSENT_GRACE_SECONDS

    def __str__(self) -> str:
        if self.unreachable is not None:
            return f"Redshift does not answer: {self.unreachable}"
        if self.integration is None:
            return "the integration has no database"
        counts = Counter(state.state for state in self.states)
        total = len(self.states) + len(self.absent)
        told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()) if state != SYNCED)
        told += f", {len(self.absent)} not listed yet" if self.absent else ""
        rest = f" ({told.removeprefix(', ')})" if told else ""
        return f"{counts[SYNCED]} of {total} tables Synced{rest}, integration in {self.integration.state}"


def wait_for_tables(
    sessions: SessionFactory,
    *,
    integration_id: str,
    database: str,
    tables: Sequence[TableName] | None,
    timeout_seconds: float,
    report: Callable[[str], None],
    poll: Backoff | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Seeding:
    """Until every table is Synced or has failed. Raises `WaitTimeout` with how far it came.

    The target cannot be reached at times while an integration is made: that is waited for, and said.
    """
    wanted = None if tables is None else tuple(tables)
    changed_at, before = clock(), ""

    def read() -> Seeding:
        nonlocal changed_at, before
        try:
            with sessions() as session:
                rows = activity.read_integrations(session, integration_id)
                states = activity.read_table_states(session, integration_id, database)
        except RedshiftUnavailable as error:
            return Seeding(None, {}, wanted, unreachable=str(error))
        row = next((one for one in rows if one.target_database == database and not one.pending), None)
        seen = Seeding(row, states, wanted)
        if str(seen) != before:
            changed_at, before = clock(), str(seen)
        return Seeding(row, states, wanted, unchanged_seconds=clock() - changed_at)

    return wait_for(
        read,
        until=lambda seen: seen.done,
        describe=str,
        timeout_seconds=timeout_seconds,
        report=report,
        poll=poll,
        clock=clock,
    )
