"""All replications of one embedded AWS: what the warehouse and the control plane talk to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.stream.replica import Figures, Integrations, NamespaceHandle, Replica
from zeroetl_dagster.local.stream.writer import FAILED

if TYPE_CHECKING:
    from zeroetl_dagster.local.postgres import PostgresServers

_WAIT_SECONDS = 2.0
# ALTER DATABASE … INTEGRATION SET (Redshift SQL reference, ALTER DATABASE); the rest is refused.
_FLAGS = frozenset({"query_all_states", "acceptinvchars", "truncatecolumns", "auto_remediation"})
MAX_REFRESH_INTERVAL_SECONDS = 432_000


class OptionError(ValueError):
    """An option that the embedded Redshift does not have, or a value it does not take."""


@dataclass(frozen=True)
class Refresh:
    """Which tables to copy anew: ALL, INERROR or REMEDIABLE (of `schemas`, if any), or TABLE with `tables`."""

    scope: str
    schemas: tuple[str, ...] = ()
    tables: tuple[tuple[str, ...], ...] = ()

    def chooses(self, schema: str, name: str, state: str) -> bool:
        if self.scope == "TABLE":
            return (schema, name) in self.tables
        if self.schemas and schema not in self.schemas:
            return False
        # REMEDIABLE: synced tables with duplicate rows, which a replica that follows keys does not have
        return self.scope == "ALL" or (self.scope == "INERROR" and state == FAILED)


@dataclass(frozen=True)
class IntegrationMetrics:
    """What CloudWatch is told. Times are epoch seconds; bytes are those since the last call."""

    integration_id: str
    lag_seconds: float
    tables_replicated: int
    tables_failed: int
    bytes_transferred: int
    latest_detected_change: float | None
    latest_applied_change: float | None


class Replicator:
    """Thread-safe. `on_health` is told of an integration: active, syncing or needs_attention, and the errors."""

    def __init__(self, postgres: PostgresServers, integrations: Integrations | None = None) -> None:
        self.postgres = postgres
        self.integrations = integrations
        self.on_health: Callable[[str, str, list[tuple[str, str]]], None] | None = None
        self._replicas: dict[tuple[str, str], Replica] = {}
        self._lock = threading.RLock()

    def attach(
        self,
        namespace: NamespaceHandle,
        database: str,
        integration_id: str,
        source_database: str | None,
        options: Mapping[str, object],
    ) -> None:
        """Start the replication into a database made from an integration, or resume it after a restart.

        Raises `OptionError`, `ValueError` when the source database is not named or is replicated into another database
        already.
        """
        if self.integrations is None:
            raise RuntimeError("the replicator has not been given the integrations")
        if not source_database:
            raise ValueError(f"name the source database: CREATE DATABASE {database} FROM INTEGRATION … DATABASE …")
        check_options(options)
        with self._lock:
            for (_, other), replica in self._replicas.items():
                if (replica.integration_id, replica.source_database) == (integration_id, source_database):
                    raise ValueError(
                        f"the integration {integration_id} replicates {source_database!r} into the database {other!r} "
                        "already: drop that first"
                    )
            replica = Replica(
                self.postgres,
                self.integrations,
                namespace,
                database,
                integration_id,
                source_database,
                options,
                lambda: self._report(integration_id),
            )
            self._replicas[namespace.namespace_id, database] = replica
        replica.start()

    def detach(self, namespace_id: str, database: str) -> None:
        """Stop replicating into a database that is dropped, and take slot and publication away."""
        with self._lock:
            replica = self._replicas.pop((namespace_id, database), None)
        if replica is not None:
            replica.stop()
            replica.remove_from_source()

    def refresh(self, namespace_id: str, database: str, scope: Refresh) -> None:
        """Resync tables, asynchronously. Raises `KeyError` when nothing replicates into the database."""
        self._replica(namespace_id, database).wish(lambda one: one.refresh(scope.chooses), wait_seconds=_WAIT_SECONDS)

    def set_options(self, namespace_id: str, database: str, options: Mapping[str, object]) -> None:
        """Change options by name. Raises `OptionError`, `KeyError` when nothing replicates into the database."""
        check_options(options)
        self._replica(namespace_id, database).wish(lambda one: one.set_options(options), wait_seconds=_WAIT_SECONDS)

    def integration_changed(self, integration_id: str) -> None:
        """Its status or its filter may be another."""
        with self._lock:
            replicas = [one for one in self._replicas.values() if one.integration_id == integration_id]
        for replica in replicas:
            replica.wish(Replica.integration_changed)

    def metrics(self) -> list[IntegrationMetrics]:
        """One of each integration with a database; of several databases the worst lag and the oldest times."""
        with self._lock:
            replicas = list(self._replicas.values())
        by_integration: dict[str, list[Figures]] = {}
        for replica in replicas:
            by_integration.setdefault(replica.integration_id, []).append(replica.figures())
        return [_together(integration_id, figures) for integration_id, figures in by_integration.items()]

    def stop(self) -> None:
        with self._lock:
            replicas = list(self._replicas.values())
            self._replicas.clear()
        for replica in replicas:
            replica.stop()

    def _replica(self, namespace_id: str, database: str) -> Replica:
        with self._lock:
            found = self._replicas.get((namespace_id, database))
        if found is None:
            raise KeyError(f"nothing replicates into the database {database!r}")
        return found

    def _report(self, integration_id: str) -> None:
        """The worst status among the integration's databases."""
        with self._lock:
            healths = [one.health for one in self._replicas.values() if one.integration_id == integration_id]
        statuses = {health.status for health in healths}
        status = next((one for one in ("syncing", "needs_attention") if one in statuses), "active")
        if self.on_health is not None:
            self.on_health(integration_id, status, [error for health in healths for error in health.errors])


def check_options(options: Mapping[str, Any]) -> None:
    """Raises `OptionError` naming the option, what was given and what is allowed."""
    for name, value in options.items():
        if name == "history_mode":
            if value:
                raise OptionError("HISTORY_MODE = TRUE is not implemented by the embedded Redshift; leave it FALSE")
        elif name == "refresh_interval":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_REFRESH_INTERVAL_SECONDS:
                raise OptionError(f"REFRESH_INTERVAL is {value}: give seconds from 0 to {MAX_REFRESH_INTERVAL_SECONDS}")
        elif name not in _FLAGS:
            known = ", ".join(sorted(flag.upper() for flag in _FLAGS))
            raise OptionError(f"{name.upper()} is no option of an integration's database: REFRESH_INTERVAL, {known}")
        elif not isinstance(value, bool):
            raise OptionError(f"{name.upper()} is {value}: give TRUE or FALSE")


def _together(integration_id: str, figures: list[Figures]) -> IntegrationMetrics:
    detected = [one.latest_detected_change for one in figures if one.latest_detected_change is not None]
    applied = [one.latest_applied_change for one in figures if one.latest_applied_change is not None]
    return IntegrationMetrics(
        integration_id,
        max(one.lag_seconds for one in figures),
        sum(one.tables_replicated for one in figures),
        sum(one.tables_failed for one in figures),
        sum(one.bytes_transferred for one in figures),
        min(detected) if detected else None,
        min(applied) if applied else None,
    )
