"""The parts of one embedded AWS, handed to whoever needs them: no globals, so several can live side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from zeroetl_dagster.local.folder import DataFolder

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.s3_objects import Objects
    from zeroetl_dagster.local.postgres import PostgresServers
    from zeroetl_dagster.local.store import Store
    from zeroetl_dagster.local.stream.replicator import Replicator
    from zeroetl_dagster.local.warehouse.storage import Warehouse


@dataclass(frozen=True)
class Delays:
    """Seconds that AWS takes minutes for. Short, never zero: clients must really wait."""

    creating_seconds: float = 2.0
    modifying_seconds: float = 1.0
    deleting_seconds: float = 1.0
    metrics_interval_seconds: float = 60.0


@dataclass
class World:
    """One embedded AWS, all accounts and Regions of it."""

    folder: DataFolder
    store: Store
    postgres: PostgresServers
    warehouse: Warehouse
    replicator: Replicator
    delays: Delays = field(default_factory=Delays)
    default_account: str = "123456789012"
    default_region: str = "ap-northeast-1"

    @cached_property
    def objects(self) -> Objects:
        """S3's objects, opened at the first use (one index for all services)."""
        from zeroetl_dagster.local.aws.s3_objects import Objects

        return Objects(self.folder.s3)
